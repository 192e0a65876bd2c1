package tidy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// plant makes a tree of files; a name that ends with a slash is a directory, one with an arrow a link.
func plant(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dir")
	for _, name := range names {
		name, to, link := strings.Cut(name, "->")
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if link {
			err = errors.Join(err, os.Symlink(to, path))
		} else if strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.MkdirAll(path, 0o700))
		} else {
			err = errors.Join(err, os.WriteFile(path, nil, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		name, _ := filepath.Rel(dir, path)
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestRemove: what is ours goes, in whatever form; what is not stays, and is told.
func TestRemove(t *testing.T) {
	precious := plant(t, "precious")
	tree := Tree{
		Ours:   func(_ string, entry fs.DirEntry) bool { return strings.HasPrefix(entry.Name(), "our") },
		Below:  []Tree{{Dir: "below", Ours: func(string, fs.DirEntry) bool { return true }}, {Dir: "bare"}, {Dir: "missing"}},
		Marker: "marker",
	}
	ours := []string{"ours", "our-dir/with/what/others/put", "our-link->" + precious, "below/x", "below/y/z", "bare/", "marker"}
	for _, tc := range []struct {
		foreign, stays, left []string
	}{
		{},
		{[]string{"theirs"}, []string{"theirs"}, []string{".", "theirs"}},
		{[]string{"bare/theirs", "bare/dir/x"}, []string{"bare/dir", "bare/theirs"}, []string{".", "bare", "bare/dir", "bare/dir/x", "bare/theirs"}},
		{[]string{"theirs->" + precious}, []string{"theirs"}, []string{".", "theirs"}},
	} {
		tree.Dir = plant(t, append(slices.Clone(ours), tc.foreign...)...)
		for again := range 2 {
			stays, err := tree.Remove()
			for i := range stays {
				stays[i], _ = filepath.Rel(tree.Dir, stays[i])
			}
			if err != nil || !slices.Equal(stays, tc.stays) {
				t.Errorf("with %q, time %d: stays %q, %v; want %q", tc.foreign, again, stays, err, tc.stays)
			}
			if got := left(t, tree.Dir); !slices.Equal(got, tc.left) {
				t.Errorf("with %q, time %d: left %q, want %q", tc.foreign, again, got, tc.left)
			}
		}
	}
	if got := left(t, precious); !slices.Contains(got, "precious") {
		t.Error("a link was followed")
	}
}
