//go:build linux

// Package kernels keeps prepared kernels by name, so that a Spec can name one.
//
// There are only three types: a [Dir] holds [Kernel]s, and a [Source] is what one is made of.
//
//	DIR/NAME/vmlinux               what Firecracker boots
//	DIR/NAME/config                what it was configured with; where that is known
//	DIR/NAME/lib/modules/RELEASE   its modules; where it has any
//	DIR/.new-…                     one that is being made or removed; what a killed process has left, the next one removes
//
// # Caveats
//
// A kernel appears whole and is never changed: another one gets another name. Machines have a copy of their own, so one may be removed while they run.
package kernels

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
	"github.com/tangle-network/microvm-runtime/kernel"
)

const (
	imageFile  = "vmlinux"
	configFile = "config"
	modulesDir = "lib/modules"
	newPrefix  = ".new-"
)

// Dir is a directory of kernels. It need not exist.
type Dir string

// Kernel is a prepared kernel.
type Kernel struct {
	Name     string           `json:"name"`
	Release  string           `json:"release"` // As uname(2) says in it. Empty where it does not say.
	Vmlinux  string           `json:"vmlinux"` // Path.
	Size     int64            `json:"size"`    // Of vmlinux, in bytes.
	Modules  int              `json:"modules"` // How many there are.
	Checked  bool             `json:"checked"` // Its configuration is known.
	Findings []kernel.Finding `json:"findings,omitempty"`
}

// Tree says what is ours in the directory.
func Tree(dir string) tidy.Tree {
	return tidy.Tree{Dir: dir, Ours: func(dir string, entry fs.DirEntry) bool {
		_, err := os.Lstat(filepath.Join(dir, entry.Name(), imageFile))
		return err == nil || strings.HasPrefix(entry.Name(), newPrefix)
	}}
}

// Path returns where the kernel of a name is: microvm.ErrInvalid, which names those that there are, when there is none.
func (d Dir) Path(name string) (string, error) {
	path := filepath.Join(string(d), name, imageFile)
	err := microvm.ValidateName(name)
	if err == nil {
		_, err = os.Stat(path)
	}
	switch {
	case err == nil:
		return path, nil
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	names, err := d.names()
	if err != nil {
		return "", err
	}
	return "", fmt.Errorf("%w: there is no kernel %q in %s, only %q (microvm kernel import)", microvm.ErrInvalid, name, d, names)
}

// names returns what there is, sorted.
func (d Dir) names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	names := []string{}
	for _, entry := range entries {
		if _, err := os.Stat(filepath.Join(string(d), entry.Name(), imageFile)); err == nil && microvm.ValidateName(entry.Name()) == nil {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// List returns all kernels, sorted by name.
func (d Dir) List() ([]Kernel, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	kernels := make([]Kernel, 0, len(names))
	for _, name := range names {
		k, err := d.Get(name)
		if err != nil {
			return nil, err
		}
		kernels = append(kernels, k)
	}
	return kernels, nil
}

// Get looks at one kernel.
func (d Dir) Get(name string) (Kernel, error) {
	path, err := d.Path(name)
	if err != nil {
		return Kernel{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Name: name, Vmlinux: path, Size: info.Size()}
	if k.Release, err = kernel.Release(path); err != nil && !errors.Is(err, kernel.ErrFormat) {
		return k, err
	}
	config, err := os.ReadFile(filepath.Join(filepath.Dir(path), configFile))
	if err == nil {
		k.Checked, k.Findings = true, kernel.Check(config)
	}
	k.Modules, err = countModules(filepath.Join(filepath.Dir(path), modulesDir))
	return k, err
}

func countModules(dir string) (count int, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && strings.Contains(entry.Name(), ".ko") {
			count++
		}
		return err
	})
	return count, err
}

// Remove removes a kernel. Machines that were made with it keep theirs.
func (d Dir) Remove(ctx context.Context, name string) error {
	path, err := d.Path(name)
	if err != nil {
		return err
	}
	gone, end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	return errors.Join(os.Rename(filepath.Dir(path), filepath.Join(gone, name)), end())
}

// begin makes a directory for a kernel that comes or goes, one at a time: so what others have left was left by who was killed, and is removed. end must be called.
func (d Dir) begin(ctx context.Context) (temp string, end func() error, err error) {
	lock, err := flock.Dir(ctx, string(d))
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return "", nil, err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), newPrefix) {
			if err := os.RemoveAll(filepath.Join(string(d), entry.Name())); err != nil {
				return "", nil, err
			}
		}
	}
	if temp, err = os.MkdirTemp(string(d), newPrefix); err != nil {
		return "", nil, err
	}
	return temp, func() error { return errors.Join(os.RemoveAll(temp), lock.Close()) }, nil
}
