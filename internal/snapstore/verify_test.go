//go:build linux

package snapstore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestHash: it tells contents apart, and none by how they lie on the disk.
func TestHash(t *testing.T) {
	of := func(write func(f *os.File)) string {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		write(f)
		sum, err := hash(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	const size = 10*hashBlock + 100
	text := bytes.Repeat([]byte("x"), hashBlock+5)
	holes := of(func(f *os.File) { f.Truncate(size); f.WriteAt(text, 3*hashBlock+7) })
	full := of(func(f *os.File) { f.Write(make([]byte, size)); f.WriteAt(text, 3*hashBlock+7) })
	if holes != full {
		t.Error("holes and zeros differ")
	}
	seen := map[string]string{holes: "the text"}
	for name, write := range map[string]func(f *os.File){
		"nothing":    func(f *os.File) {},
		"holes":      func(f *os.File) { f.Truncate(size) },
		"more holes": func(f *os.File) { f.Truncate(size + 1) },
		"elsewhere":  func(f *os.File) { f.Truncate(size); f.WriteAt(text, 3*hashBlock+8) },
		"a block on": func(f *os.File) { f.Truncate(size); f.WriteAt(text, 4*hashBlock+7) },
		"longer":     func(f *os.File) { f.Truncate(size + 1); f.WriteAt(text, 3*hashBlock+7) },
		"at the end": func(f *os.File) { f.Truncate(size); f.WriteAt([]byte("x"), size-1) },
		"a bit of it": func(f *os.File) {
			f.Truncate(size)
			f.WriteAt(text, 3*hashBlock+7)
			f.WriteAt([]byte("y"), 4*hashBlock)
		},
		"and at first": func(f *os.File) { f.Truncate(size); f.WriteAt(text, 3*hashBlock+7); f.WriteAt([]byte("y"), 0) },
	} {
		sum := of(write)
		if other := seen[sum]; other != "" {
			t.Errorf("%s is %s", name, other)
		}
		seen[sum] = name
	}
}
