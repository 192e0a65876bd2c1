//go:build linux

package agent

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"unicode/utf8"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	maxListed = 512       // files of one answer
	maxNames  = 128 << 10 // bytes of their names: JSON makes at most six of one
	manyNames = 8 << 10   // that are kept while the first of them are looked for
)

// listFiles answers with one page of a directory. However large that is, it takes little memory: each page goes through all of it.
func (s *Server) listFiles(w http.ResponseWriter, r *http.Request) {
	var request wire.FilesList
	if !decode(w, r, &request) {
		return
	}
	if err := checkPath(request.Path); err != nil {
		fail(w, err)
		return
	}
	page, err := listPage(request.Path, request.After)
	if err != nil {
		fail(w, fileError(err))
		return
	}
	answer(w, page)
}

func listPage(at, after string) (page wire.FilesListed, err error) {
	dir, err := os.OpenFile(at, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return page, err
	}
	defer dir.Close()
	names, err := firstNames(dir, after)
	if err != nil {
		return page, err
	}
	page.Files = []wire.File{} // none is [] too
	bytes := 0
	for i, name := range names {
		if bytes += len(name); i == maxListed || bytes > maxNames {
			page.Next = names[i-1]
			break
		}
		info, err := os.Lstat(filepath.Join(at, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return page, err
		}
		page.Files = append(page.Files, fileOf(info))
	}
	return page, nil
}

// firstNames returns the first names of a directory after another, in order: more than fit into a page, where there are more.
func firstNames(dir *os.File, after string) (names []string, err error) {
	keep := func() {
		slices.Sort(names)
		names = names[:min(len(names), maxListed+1)]
	}
	for {
		some, err := dir.Readdirnames(1 << 10)
		for _, name := range some {
			if name > after && utf8.ValidString(name) {
				names = append(names, name)
			}
		}
		if len(names) > manyNames {
			keep()
		}
		if err == io.EOF {
			keep()
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
