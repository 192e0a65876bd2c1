//go:build linux

package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Dir is the state directory and its volatile counterpart. It holds no lock and no descriptor.
type Dir struct {
	root, sockets string
	layout        Layout
	fixed         os.FileInfo // of the layout's file; nil before FixLayout
	bootID        string
	mutexes       *mutexes
	hints         *sync.Map // uid → the name that it was last seen under; checked before it is believed
}

// Open makes the directories where they are missing, 0700, and checks those that are there: microvm.ErrInvalid when one lets others
// write, belongs to another user, or holds files and no marker of ours, or when the state directory is one of another layout, microvm.ErrIncompatible when
// it is newer.
func Open(root string, layout Layout) (*Dir, error) {
	bootID, err := unix.BootID()
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, sockets: layout.SocketDir, layout: layout, bootID: bootID, mutexes: newMutexes(), hints: &sync.Map{}}
	if err := d.claimRoot(); err != nil { // before anything else is touched
		return nil, err
	}
	if err := d.checkLayout(); err != nil {
		return nil, err
	}
	if err := d.claimSockets(); err != nil {
		return nil, err
	}
	for _, dir := range []string{d.names(), filepath.Join(root, "machines"), filepath.Join(d.sockets, runDir)} {
		if err := disk.MakeDir(dir); err != nil {
			return nil, err
		}
	}
	return d, d.sweep()
}

// runDir is the directory, in the socket directory, of what dies with the host's present boot.
const runDir = ".run"

// sweep finishes removals that were interrupted.
func (d *Dir) sweep() error {
	entries, err := os.ReadDir(filepath.Join(d.root, "machines"))
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), removedPrefix) {
			err = errors.Join(err, os.RemoveAll(d.Machine(entry.Name())))
		}
	}
	return err
}

// Root returns the state directory.
func (d *Dir) Root() string { return d.root }

// BootID returns the host's present boot id.
func (d *Dir) BootID() string { return d.bootID }

// Machine returns the directory of what a machine has that survives a reboot.
func (d *Dir) Machine(uid string) string { return filepath.Join(d.root, "machines", uid) }

// Exists says whether there is a machine of this uid, in whatever state.
func (d *Dir) Exists(uid string) bool {
	_, err := os.Lstat(d.Machine(uid))
	return err == nil
}

// Volatile returns the directory of what dies with the host's present boot.
func (d *Dir) Volatile(uid string) string { return filepath.Join(d.sockets, runDir, uid) }

// Sockets returns the place of the VMM's working directory, or of the link to its jail's root.
func (d *Dir) Sockets(uid string) string { return filepath.Join(d.sockets, uid) }

// Journal returns the path of the journal of events.
func (d *Dir) Journal() string { return filepath.Join(d.sockets, runDir, "journal") }

func (d *Dir) names() string { return filepath.Join(d.root, "names") }

// UIDs returns the uids of all machines, sorted.
func (d *Dir) UIDs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.root, "machines"))
	if err != nil {
		return nil, err
	}
	uids := make([]string, 0, len(entries))
	for _, entry := range entries {
		if ValidUID(entry.Name()) && entry.IsDir() {
			uids = append(uids, entry.Name())
		}
	}
	return uids, nil
}
