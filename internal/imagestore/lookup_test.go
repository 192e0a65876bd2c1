//go:build linux

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// store makes a store with images of a few bytes.
func store(t *testing.T, images map[string][]string) Dir {
	t.Helper()
	d := Dir(filepath.Join(t.TempDir(), "images"))
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	for digest, references := range images {
		add(t, d, digest, references...)
	}
	return d
}

func add(t *testing.T, d Dir, digest string, references ...string) {
	t.Helper()
	content := []byte("base of " + digest)
	record := Record{Digest: digest, Platform: "linux/amd64", Created: time.Now().Round(0), Size: int64(len(content)), SHA256: "x", Config: Config{Cmd: []string{digest}}}
	err := errors.Join(d.Build(digest), os.WriteFile(d.Base(digest), content, 0o444), d.Commit(record), d.Name(t.Context(), digest, references...))
	if err != nil {
		t.Fatal(err)
	}
}

func of(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func TestLookup(t *testing.T) {
	twin := "sha256:" + strings.Repeat("a", 20) + strings.Repeat("b", 44)
	index := of("e")
	d := store(t, map[string][]string{
		of("a"): {"docker.io/library/debian:12", "docker.io/library/debian:latest"}, of("b"): {"localhost:5000/app:1", "docker.io/library/app@" + index}, twin: nil,
		"sha256:" + strings.Repeat("f", 64): {"docker.io/library/deadbeefdead:latest"}, "sha256:deadbeefdead" + strings.Repeat("0", 52): nil,
	})
	path := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"debian:12": of("a"), "debian": of("a"), "docker.io/library/debian:12": of("a"), "localhost:5000/app:1": of("b"), of("b"): of("b"), strings.Repeat("b", 12): of("b"), strings.Repeat("b", 64): of("b"),
		"sha256:" + strings.Repeat("b", 12): of("b"), "app@" + index: of("b"), "other@" + of("a"): of("a"), strings.Repeat("a", 21): of("a"), strings.Repeat("a", 20) + "b": twin, "deadbeefdead": of("f"), "deadbeefdead0": "sha256:deadbeefdead" + strings.Repeat("0", 52),
	} {
		e, err := Lookup(string(d), text)
		if err != nil || e.Digest != want || e.Path != filepath.Join(string(d), "images", want[7:], "base.ext4") || !slices.Equal(e.Config.Cmd, []string{want}) {
			t.Errorf("%s: %+v, %v", text, e, err)
		}
	}
	if e, err := Lookup(string(d), path); err != nil || e.Path != path || e.Size != 5 || e.Digest != "" {
		t.Errorf("a path: %+v, %v", e, err)
	}
	t.Chdir(filepath.Dir(path))
	if e, err := Lookup(string(d), "./base"); err != nil || e.Path != path {
		t.Errorf("a relative path: %+v, %v", e, err)
	}
	if e, err := Lookup(string(d), "debian"); err != nil || !slices.Equal(e.References, []string{"debian:12", "debian:latest"}) || e.InUse {
		t.Errorf("%+v, %v", e, err)
	}
	for text, want := range map[string]error{
		"debian:13": microvm.ErrNotFound, of("c"): microvm.ErrNotFound, "cccccccccccc": microvm.ErrNotFound, "a@" + of("c"): microvm.ErrNotFound, "/no/where": microvm.ErrNotFound,
		"": microvm.ErrInvalid, "NO": microvm.ErrInvalid, strings.Repeat("a", 20): microvm.ErrInvalid, "/": microvm.ErrInvalid,
	} {
		if e, err := Lookup(string(d), text); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v, want %v", text, e, err, want)
		}
	}
	_, err := Lookup(string(d), "debian:13")
	if said := fmt.Sprint(err); !strings.Contains(said, "debian:13") || !strings.Contains(said, "microvm image pull") {
		t.Error("what to do is not said:", said)
	}
	if _, err := Lookup(filepath.Join(t.TempDir(), "none"), "debian"); !errors.Is(err, microvm.ErrNotFound) {
		t.Error("there is no store:", err)
	}
}

// A base that is linked is in use, and lives on when its image goes.
func TestLink(t *testing.T) {
	d := store(t, map[string][]string{of("a"): {"docker.io/library/a:latest"}})
	e, err := Lookup(string(d), "a")
	if err != nil || e.InUse {
		t.Fatal(e, err)
	}
	mine := filepath.Join(t.TempDir(), "mine")
	if err := e.Link(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if now, err := d.Get(of("a")); err != nil || !now.InUse {
		t.Errorf("%+v, %v", now, err)
	}
	if err := d.Drop(of("a")); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(mine); err != nil || string(content) != "base of "+of("a") {
		t.Errorf("%q, %v", content, err)
	}
	if err := e.Link(t.Context(), filepath.Join(t.TempDir(), "late")); !errors.Is(err, microvm.ErrNotFound) {
		t.Error("its image is gone:", err)
	}
	if err := e.Link(t.Context(), mine); !errors.Is(err, microvm.ErrNotFound) && !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
}

// What can't be read is told, and what is newer is left alone.
func TestDamaged(t *testing.T) {
	d := store(t, map[string][]string{of("a"): {"docker.io/library/a:latest"}, of("b"): {"docker.io/library/b:latest"}})
	record := filepath.Join(d.image(of("a")), recordName)
	good, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		"": ErrDamaged, "{": ErrDamaged, "null": ErrDamaged, `{"version":0,"body":{}}`: ErrDamaged, `{"version":1,"body":[]}`: ErrDamaged, `{"version":1,"body":{"digest":"other"}}`: ErrDamaged,
		`{"version":2,"body":{}}`: microvm.ErrIncompatible, strings.Repeat(" ", maxRecord+1): ErrDamaged, string(good): nil,
	} {
		if err := os.WriteFile(record, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Lookup(string(d), "a")
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%.40q: %v, want %v", text, err, want)
		}
		all, err := d.List()
		if want != nil && (len(all) != 1 || !errors.Is(err, want)) || want == nil && (len(all) != 2 || err != nil) {
			t.Errorf("%.40q: List gives %+v, %v", text, all, err)
		}
	}
	if err := os.WriteFile(d.join(referencesName), []byte(`{"version":2,"body":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lookup(string(d), "a"); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error(err)
	}
	if err := d.Name(t.Context(), of("a"), "docker.io/library/c:latest"); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error("a newer file was written over:", err)
	}
}

// Names that are given at once are all there afterwards.
func TestNamesAtOnce(t *testing.T) {
	d := store(t, map[string][]string{of("a"): nil})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := d.Name(t.Context(), of("a"), fmt.Sprintf("docker.io/library/n%d:latest", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if e, err := d.Get(of("a")); err != nil || len(e.References) != 20 {
		t.Errorf("%+v, %v", e, err)
	}
	if err := errors.Join(d.Unname(t.Context(), "docker.io/library/n1:latest"), d.Unname(t.Context(), "docker.io/library/none:latest"), d.UnnameAll(t.Context(), of("b"))); err != nil {
		t.Error(err)
	}
	if e, err := d.Get(of("a")); err != nil || len(e.References) != 19 {
		t.Errorf("%+v, %v", e, err)
	}
	if err := d.UnnameAll(t.Context(), of("a")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.join(referencesName)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file of no names:", err)
	}
}

// One has the lock at a time, whoever removes the file that it is on; and none is left.
func TestLock(t *testing.T) {
	d := store(t, nil)
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				unlock, err := d.Lock(t.Context(), of("a"))
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				inside.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d had the lock at once", most.Load())
	}
	unlock, err := d.Lock(t.Context(), of("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.TryLock(of("a")); !errors.Is(err, microvm.ErrBusy) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := d.Lock(ctx, of("a")); !errors.Is(err, microvm.ErrBusy) || !errors.Is(err, gone) {
		t.Error(err)
	}
	unlock()
	if unlock, err := d.TryLock(of("a")); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
	if entries, err := os.ReadDir(d.join("locks")); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// A symbolic link in a record's place is not followed.
func TestLinksAreNotFollowed(t *testing.T) {
	d := store(t, map[string][]string{of("a"): nil})
	record, elsewhere := filepath.Join(d.image(of("a")), recordName), filepath.Join(t.TempDir(), "record")
	if err := errors.Join(os.Rename(record, elsewhere), os.Symlink(elsewhere, record)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(of("a")); !errors.Is(err, syscall.ELOOP) {
		t.Error(err)
	}
}

// A purge takes what is ours, and nothing else.
func TestTree(t *testing.T) {
	d := store(t, map[string][]string{of("a"): {"docker.io/library/a:latest"}})
	for _, name := range []string{"blobs/sha256-" + of("b")[7:], "blobs/sha256-" + of("b")[7:] + ".part", "locks/references", "references.json.new", "blobs/spool-123"} {
		if err := os.WriteFile(d.join(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	others := []string{d.join("images/mine"), d.join("notes")}
	for _, path := range others {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if stays, err := Tree(string(d)).Remove(); err != nil || !slices.Equal(stays, others) {
		t.Errorf("%q stays, %v", stays, err)
	}
	if err := errors.Join(os.Remove(others[0]), os.Remove(others[1])); err != nil {
		t.Fatal(err)
	}
	if stays, err := Tree(string(d)).Remove(); err != nil || len(stays) != 0 {
		t.Errorf("%q stays, %v", stays, err)
	}
	if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
