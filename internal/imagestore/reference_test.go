//go:build linux

package imagestore

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	microvm "github.com/tangle-network/microvm-runtime"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestNormalize(t *testing.T) {
	for reference, want := range map[string]struct{ full, short string }{
		"debian":                             {"docker.io/library/debian:latest", "debian:latest"},
		"debian:12":                          {"docker.io/library/debian:12", "debian:12"},
		"docker.io/debian:12":                {"docker.io/library/debian:12", "debian:12"},
		"index.docker.io/library/debian":     {"docker.io/library/debian:latest", "debian:latest"},
		"team/app":                           {"docker.io/team/app:latest", "team/app:latest"},
		"team/app/part:V1_x":                 {"docker.io/team/app/part:V1_x", "team/app/part:V1_x"},
		"ghcr.io/team/app:1.0-rc":            {"ghcr.io/team/app:1.0-rc", "ghcr.io/team/app:1.0-rc"},
		"localhost/app":                      {"localhost/app:latest", "localhost/app:latest"},
		"localhost:5000/app:1":               {"localhost:5000/app:1", "localhost:5000/app:1"},
		"127.0.0.1:5000/app":                 {"127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"},
		"[::1]:5000/app":                     {"[::1]:5000/app:latest", "[::1]:5000/app:latest"},
		"debian@" + digest:                   {"docker.io/library/debian@" + digest, "debian@" + digest},
		"debian:12@" + digest:                {"docker.io/library/debian@" + digest, "debian@" + digest},
		"a.b-c__d/e---f":                     {}, // a host has no underscores
		"library/debian":                     {"docker.io/library/debian:latest", "debian:latest"},
		"example.com/library/debian":         {"example.com/library/debian:latest", "example.com/library/debian:latest"},
		"":                                   {},
		" ":                                  {},
		"Debian":                             {},
		"debian:":                            {},
		"debian:a b":                         {},
		"debian:" + strings.Repeat("x", 129): {},
		"debian@sha256:1":                    {},
		"debian@md5:1":                       {},
		"@" + digest:                         {},
		"/debian":                            {},
		"debian/":                            {},
		"a//b":                               {},
		"../a":                               {},
		"a/../b":                             {},
		"-a":                                 {},
		"a..b":                               {},
		"http://host/a":                      {},
		"host:x/a":                           {},
		"a\x00b":                             {},
		strings.Repeat("a/", 130) + "a":      {},
	} {
		full, err := Normalize(reference)
		if want.full == "" {
			if !errors.Is(err, microvm.ErrInvalid) {
				t.Errorf("%.60q: %q, %v", reference, full, err)
			}
			continue
		}
		if err != nil || full != want.full || Familiar(full) != want.short {
			t.Errorf("%q: %q, %q, %v; want %q", reference, full, Familiar(full), err, want)
		}
		if again, err := Normalize(Familiar(full)); err != nil || again != full {
			t.Errorf("%q: %q, %v; want %q", Familiar(full), again, err, full)
		}
	}
}

// FuzzNormalize holds what is normalized against the library that pulls: what we accept it accepts, and means the same.
func FuzzNormalize(f *testing.F) {
	for _, reference := range []string{"debian:12", "localhost:5000/a/b:c", "ghcr.io/a@" + digest, "docker.io/x", "index.docker.io/a/b", "[::1]/a", "a.b/c", "-", "a__b/c:D"} {
		f.Add(reference)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		full, err := Normalize(reference)
		if err != nil {
			return
		}
		again, err := Normalize(full)
		if err != nil || again != full {
			t.Fatalf("%q is %q, and that is %q, %v", reference, full, again, err)
		}
		if short, err := Normalize(Familiar(full)); err != nil || short != full {
			t.Fatalf("%q is %q for short, and that is %q, %v", full, Familiar(full), short, err)
		}
		theirs, err := name.ParseReference(reference)
		if err != nil {
			if strings.Contains(err.Error(), "repository must be between 2 and 255") || strings.HasPrefix(reference, "[") { // one letter is a name to us, and so is [:81]
				return
			}
			t.Fatalf("%q is %q to us, and to them: %v", reference, full, err)
		}
		said := theirs.Name()
		if rest, ok := strings.CutPrefix(said, "index.docker.io/"); ok {
			said = "docker.io/" + rest
		}
		if said != full {
			t.Fatalf("%q is %q to us, and %q to them", reference, full, said)
		}
	})
}
