//go:build linux

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// Trees say what is the directories' own once all machines are destroyed.
func (d *Dir) Trees() (sockets, root tidy.Tree) {
	sockets = tidy.Tree{Dir: d.sockets, Marker: ownerFile, Ours: isPlace, Below: []tidy.Tree{{Dir: runDir, Ours: d.isVolatile}}}
	root = tidy.Tree{Dir: d.root, Marker: versionFile, Ours: isFile, Below: []tidy.Tree{{Dir: "machines", Ours: isRemoved}, {Dir: "names", Ours: d.isName}}}
	return sockets, root
}

// isFile says whether an entry of the state directory is a file of ours.
func isFile(dir string, entry fs.DirEntry) bool {
	name := entry.Name()
	return slices.Contains([]string{"lock", versionFile + record.NewSuffix, layoutFile, layoutFile + record.NewSuffix, subnetFile, subnetFile + record.NewSuffix}, name) || strings.HasPrefix(name, ProbePrefix)
}

// ProbePrefix begins the names of files that say whether the state directory's can be linked elsewhere.
const ProbePrefix = ".probe-"

func isRemoved(_ string, entry fs.DirEntry) bool {
	return strings.HasPrefix(entry.Name(), removedPrefix)
}

func (d *Dir) isName(_ string, entry fs.DirEntry) bool {
	_, err := d.target(entry.Name())
	return err == nil
}

func (d *Dir) isVolatile(_ string, entry fs.DirEntry) bool {
	journal, _, _ := strings.Cut(entry.Name(), ".")
	return ValidUID(entry.Name()) || journal == filepath.Base(d.Journal())
}

// isPlace says whether an entry of the socket directory is what a VMM that nobody knows any more left: its directory, or the link to its jail. That it is named as one is not enough.
func isPlace(dir string, entry fs.DirEntry) bool {
	name := entry.Name()
	if name == ownerFile+record.NewSuffix {
		return true
	}
	link, err := os.Readlink(filepath.Join(dir, name))
	if err == nil {
		return ValidUID(name) && strings.HasSuffix(link, filepath.Join("/", name, "root"))
	}
	_, err = os.Lstat(filepath.Join(dir, name, "img"))
	return ValidUID(name) && !errors.Is(err, fs.ErrNotExist)
}
