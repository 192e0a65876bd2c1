//go:build linux

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDirectoriesAreListedByPages lists more than is kept at once, and names that are longer than a page takes many of.
func TestDirectoriesAreListedByPages(t *testing.T) {
	long := func(i int) string { return fmt.Sprintf("%04d-%0250d", i, 0) }
	for what, c := range map[string]struct {
		files int
		name  func(int) string
		pages int
	}{
		"none":       {0, nil, 1},
		"one page":   {maxListed, func(i int) string { return fmt.Sprintf("%04d", i) }, 1},
		"two":        {maxListed + 1, func(i int) string { return fmt.Sprintf("%04d", i) }, 2},
		"many":       {manyNames + 2000, func(i int) string { return fmt.Sprintf("%05d", i) }, 20},
		"long names": {1100, long, 3},
	} {
		dir := t.TempDir()
		var want, got []string
		for i := range c.files {
			want = append(want, c.name(i))
			if err := os.WriteFile(filepath.Join(dir, c.name(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pages := 0
		for after := ""; ; pages++ {
			page, err := listPage(dir, after)
			if err != nil || len(page.Files) > maxListed {
				t.Fatalf("%s: %d files, %v", what, len(page.Files), err)
			}
			for _, f := range page.Files {
				got = append(got, f.Name)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if pages++; !slices.Equal(got, want) || pages != c.pages {
			t.Errorf("%s: %d files on %d pages, want %d on %d", what, len(got), pages, len(want), c.pages)
		}
	}
}
