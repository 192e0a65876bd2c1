//go:build linux

package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// Dir is the state directory and its volatile counterpart. It holds no lock and no descriptor.
type Dir struct {
	root, sockets string
	bootID        string
	mutexes       *mutexes
	hints         *sync.Map // uid → the name that it was last seen under; checked before it is believed
}

// Open makes the directories where they are missing, 0700, and checks those that are there: microvm.ErrInvalid when one lets others
// write or belongs to another user, microvm.ErrIncompatible when the layout is newer.
func Open(root, sockets string) (*Dir, error) {
	bootID, err := unix.BootID()
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, sockets: sockets, bootID: bootID, mutexes: newMutexes(), hints: &sync.Map{}}
	if err := private(root); err != nil {
		return nil, err
	}
	if err := d.checkVersion(); err != nil { // before anything is touched
		return nil, err
	}
	if err := private(sockets); err != nil {
		return nil, err
	}
	for _, dir := range []string{d.names(), filepath.Join(root, "machines"), filepath.Join(sockets, ".run")} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return d, d.sweep()
}

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

// private makes dir, or checks that it is a directory of ours that nobody else can change.
func private(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%w: %s is no absolute path", microvm.ErrInvalid, dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", microvm.ErrInvalid, err)
	}
	defer f.Close()
	if err := ours(f, 0o022); err != nil {
		return fmt.Errorf("%w: %s: %w", microvm.ErrInvalid, dir, err)
	}
	return f.Chmod(0o700)
}

func (d *Dir) checkVersion() error {
	path := filepath.Join(d.root, "version")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(path, []byte(strconv.Itoa(Version)+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && version > Version {
		return fmt.Errorf("%w: %s is of version %d, this program reads up to %d", microvm.ErrIncompatible, d.root, version, Version)
	}
	return nil
}

// Root returns the state directory.
func (d *Dir) Root() string { return d.root }

// BootID returns the host's present boot id.
func (d *Dir) BootID() string { return d.bootID }

// Machine returns the directory of what a machine has that survives a reboot.
func (d *Dir) Machine(uid string) string { return filepath.Join(d.root, "machines", uid) }

// Volatile returns the directory of what dies with the host's present boot.
func (d *Dir) Volatile(uid string) string { return filepath.Join(d.sockets, ".run", uid) }

// Sockets returns the place of the VMM's working directory, or of the link to its jail's root.
func (d *Dir) Sockets(uid string) string { return filepath.Join(d.sockets, uid) }

// Journal returns the path of the journal of events.
func (d *Dir) Journal() string { return filepath.Join(d.sockets, ".run", "journal") }

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
