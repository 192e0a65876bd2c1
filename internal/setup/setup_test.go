//go:build linux

package setup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	cache := t.TempDir()
	p := partsIn(cache)
	for _, part := range []string{p.Firecracker, p.Jailer, p.Vmlinux, p.Vmlinuz, p.Base, p.LabHost, filepath.Join(filepath.Dir(p.Vmlinux), "lib", "modules", "6.1", "modules.builtin")} {
		missing := part
		if filepath.Base(part) == "modules.builtin" {
			missing = p.Vmlinux
		}
		if _, err := Find(cache); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "make setup") {
			t.Errorf("%v: does not say that %s is missing", err, missing)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(part), 0o755), os.WriteFile(part, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Find(cache)
	if err != nil || got.Modules != filepath.Join(cache, "kernel", "current", "lib", "modules", "6.1") {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(got.Modules), "6.12"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(cache); !errors.Is(err, ErrMissing) {
		t.Errorf("modules of two kernels: %v", err)
	}
}

func TestDefaultCache(t *testing.T) {
	t.Setenv("MICROVM_CACHE", "/srv/cache")
	if dir, err := DefaultCache(); err != nil || dir != "/srv/cache" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("MICROVM_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", "/home/somebody/.cache")
	if dir, err := DefaultCache(); err != nil || dir != "/home/somebody/.cache/microvm-runtime" {
		t.Errorf("%q, %v", dir, err)
	}
}

// TestImageNames changes with what an image is made of, and with nothing else: an old cache is not taken for a new one.
func TestImageNames(t *testing.T) {
	s := system{"debian-12", []string{"procps", "python3-minimal"}}
	if name := s.file(); !regexp.MustCompile(`^debian-12-[0-9a-f]{8}\.ext4$`).MatchString(name) || name != (system{"debian-12", []string{"procps", "python3-minimal"}}).file() {
		t.Errorf("%s", name)
	}
	for _, packages := range [][]string{nil, {"procps"}, {"procps", "python3"}, {"procps", "python3-minimal", "jq"}, {"python3-minimal", "procps"}, {"procps python3-minimal"}} {
		if other := (system{"debian-12", packages}); other.file() == s.file() {
			t.Errorf("an image of %q is called %s too", packages, s.file())
		}
	}
	if strings.Contains(partsIn("/cache").Base, labSystem.file()) {
		t.Error("the base and the lab's host are one")
	}
}

func TestCheckSystem(t *testing.T) {
	for text, ok := range map[string]bool{
		"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n": true,
		"ID=debian\nVERSION_ID='13'\n":      true,
		"ID=\"debian\"\nVERSION_ID=11\n":    false,
		"ID=debian\n":                       false,
		"ID=ubuntu\nVERSION_ID=\"24.04\"\n": false,
		"":                                  false,
	} {
		err := checkSystem(text)
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && !(strings.Contains(err.Error(), "debian 12") && strings.Contains(err.Error(), "debian 13") && strings.Contains(err.Error(), "mmdebstrap")) {
			t.Errorf("%q: %v: does not say what is supported, and what to do elsewhere", text, err)
		}
	}
}

func TestDependedOn(t *testing.T) {
	got, ok := dependedOn("linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Recommends: other\n")
	if got != "linux-image-6.1.0-56-cloud-amd64" || !ok {
		t.Errorf("%q, %v", got, ok)
	}
	for _, text := range []string{"", "linux-image-cloud-amd64\n  Recommends: other\n"} {
		if got, ok := dependedOn(text); ok {
			t.Errorf("%q depends on %q", text, got)
		}
	}
}

// release makes an archive as Firecracker's releases have it.
func release(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadRelease(t *testing.T) {
	const dir, end = "release-v" + FirecrackerVersion + "-x86_64/", "-v" + FirecrackerVersion + "-x86_64"
	whole := release(t, map[string]string{
		dir + "firecracker" + end: "f", dir + "jailer" + end: "j", dir + "firecracker" + end + ".debug": "d", dir + "snapshot-editor" + end: "s", dir + "firecracker-v1.0.0-x86_64": "old",
	})
	got, err := readRelease(bytes.NewReader(whole))
	if err != nil || len(got) != 2 || string(got["firecracker"]) != "f" || string(got["jailer"]) != "j" {
		t.Errorf("%q, %v", got, err)
	}
	for _, n := range []int{0, 5, len(whole) / 2} {
		if got, err := readRelease(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("%d of %d bytes: %q", n, len(whole), got)
		}
	}
}

// TestInstallRefuses binaries that are not the pinned ones, and puts none in place.
func TestInstallRefuses(t *testing.T) {
	r := newRunner(t)
	if err := r.install(map[string][]byte{"firecracker": []byte("f"), "jailer": []byte("j")}); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("%v", err)
	}
	if exists(r.parts.Firecracker) || exists(r.parts.Jailer) {
		t.Error("a binary of another sum is in place")
	}
}
