//go:build linux

// Package jail makes the directory that a jailed VMM lives in, and speaks to what is in it without trusting it.
//
// There are only two types: a [Layout], which says where a jail is, and [Files], which says what is put into it.
//
//	BASE/EXEC/ID/root/            the VM's user's, from the jailer on
//	BASE/EXEC/ID/root/img/        root's, 0755: hard links of shared files, which are root's and 0444
//	BASE/EXEC/ID/root/layer       the machine's own disk, the VM's user's
//	BASE/EXEC/ID/root/drive-N     a file or a block device that is lent to the machine, the VM's user's
//	BASE/EXEC/ID/root/*.log       the VMM's log, the VM's user's
//
// # Caveats
//
// A jail is made afresh for every start. From the moment that a VMM has run in it everything outside of img/ is hostile: the VMM may
// have put links, FIFOs or devices in place of anything. This package opens it beneath its root only, follows no link, and checks what it opened.
//
// The official jailer copies its binary into the jail as root, following a link that stands in its place: in a jail that was used
// before this overwrites any file (fixed in jailer 1.13.2, 1.14.1 and 1.15). A fresh directory, and shared files that are never beside what the VM may rename, are
// the remedy for all versions.
package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/unix"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Layout says where a jail is. The jailer fixes the rest from the name of the binary and the id.
type Layout struct {
	Base string // The jailer's --chroot-base-dir.
	Exec string // Path of the firecracker binary.
	ID   string // 1 to 64 of letters, digits and dashes.
}

// Dir returns the jail's directory.
func (l Layout) Dir() string { return filepath.Join(l.Base, filepath.Base(l.Exec), l.ID) }

// Root returns what the VMM sees as "/".
func (l Layout) Root() string { return filepath.Join(l.Dir(), "root") }

// Files say what is put into a jail: names in it to paths outside.
type Files struct {
	Shared map[string]string   // Linked below img/. They stay root's.
	Config []byte              // Written to img/vm.json. Root's, read-only. Nil where there is none.
	Layer  string              // Linked to layer: the machine's own disk, which belongs to the VM's user. Optional.
	Lent   map[string]*os.File // Linked below the root, or, when it is a block device, a node of it is made. Opened with O_PATH; a file belongs to the VM's user.
	Log    string              // Name of an empty log file that is made for the VM's user.
	UID    int                 // The VM's user.
	GID    int
}

// Build makes the jail in place of whatever stands there.
func (l Layout) Build(ctx context.Context, f Files) error {
	if err := l.Remove(); err != nil {
		return err
	}
	img := filepath.Join(l.Root(), "img")
	if err := os.MkdirAll(img, 0o755); err != nil {
		return err
	}
	for name, path := range f.Shared {
		if err := disk.LinkOrCopy(ctx, filepath.Join(img, name), path); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	if f.Config != nil {
		config := filepath.Join(img, "vm.json")
		if err := errors.Join(os.WriteFile(config, f.Config, 0o444), os.Chmod(config, 0o444)); err != nil {
			return err
		}
	}
	if f.Layer != "" {
		if err := os.Link(f.Layer, filepath.Join(l.Root(), "layer")); err != nil {
			return err
		}
	}
	if err := l.lend(f); err != nil {
		return err
	}
	log := filepath.Join(l.Root(), f.Log)
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		return err
	}
	// The modes above are the umask's to weaken only; this one must be as said.
	return errors.Join(os.Chown(log, f.UID, f.GID), os.Chmod(img, 0o755))
}

// lend puts what is lent to the machine into the jail. The host's own nodes are left alone.
func (l Layout) lend(f Files) error {
	for name, file := range f.Lent {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		path := filepath.Join(l.Root(), name)
		if info.Mode().IsRegular() {
			err = unix.LinkFile(file, path)
		} else {
			err = syscall.Mknod(path, syscall.S_IFBLK|0o600, int(info.Sys().(*syscall.Stat_t).Rdev))
			if err == nil {
				err = os.Chown(path, f.UID, f.GID)
			}
		}
		if err != nil {
			return fmt.Errorf("put %s into the jail: %w", name, err)
		}
	}
	return nil
}

// Command returns the command that starts the VMM in the jail: the official jailer as init of a PID namespace, which becomes the VMM. No file that it writes gets larger than
// maxFile bytes.
func (l Layout) Command(jailer string, uid, gid int, maxFile int64, args ...string) vmm.Command {
	own := []string{
		"--id", l.ID, "--exec-file", l.Exec, "--uid", strconv.Itoa(uid), "--gid", strconv.Itoa(gid),
		"--chroot-base-dir", l.Base, "--resource-limit", "fsize=" + strconv.FormatInt(maxFile, 10), "--",
	}
	return vmm.Command{Path: jailer, Args: append(own, args...), PIDNamespace: true}
}

// Remove removes the jail with all that is in it, if it is there, and those of the same ID that were made for binaries of other names. Links are removed, not followed.
func (l Layout) Remove() error {
	entries, err := os.ReadDir(l.Base)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(l.Base, entry.Name(), l.ID)))
		}
	}
	return errors.Join(err, os.RemoveAll(l.Dir())) // also where the administrator has put a link to its parent
}
