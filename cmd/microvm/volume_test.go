//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

func TestVolumesAreParsed(t *testing.T) {
	for text, want := range map[string]volume{
		"./a:/b": {"./a", "/b", false}, "/a/b:/c/d/": {"/a/b", "/c/d", false}, ".:/work:out": {".", "/work", true}, "../x:/y:ro": {"../x", "/y", false},
		"": {}, "/a": {}, "name:/b": {}, "/a:b": {}, "/a:/": {}, "/a:/b:rw": {}, "/a:/b:c:d": {}, ":/b": {},
	} {
		got, err := parseVolume(text)
		if wrong := (usageError{}); got != want || (want == volume{}) != errors.As(err, &wrong) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// TestVolumesGoInAndBack copies a directory, through a link, to where no directory is yet, and back.
func TestVolumesGoInAndBack(t *testing.T) {
	agent := guesttest.New(t)
	host, there := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(host+"/real", 0o750), os.WriteFile(host+"/real/f", []byte("in"), 0o640), os.Symlink("real", host+"/link")); err != nil {
		t.Fatal(err)
	}
	v := volume{host + "/link", there + "/new/and/deeper", true}
	for range 2 { // again it is merged with what is there
		if err := v.put(t.Context(), agent); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(there + "/new/and/deeper/f"); string(text) != "in" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(there + "/new/and"); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if err := errors.Join(os.WriteFile(there+"/new/and/deeper/f", []byte("out"), 0o640), os.WriteFile(there+"/new/and/deeper/g", []byte("more"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := v.get(t.Context(), agent); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "out", "g": "more"} {
		if text, err := os.ReadFile(filepath.Join(host, "real", name)); string(text) != want || err != nil {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	one := volume{host + "/real/f", there + "/file/one", true}
	if err := errors.Join(one.put(t.Context(), agent), os.WriteFile(there+"/file/one", []byte("of one"), 0o600), one.get(t.Context(), agent)); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(host + "/real/f"); string(text) != "of one" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if err := (volume{host + "/none", "/x", false}).put(t.Context(), agent); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
