//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/kernels"
)

// stackFile is what a stack's directory has.
const stackFile = "rootfs.ext4"

// resolveNames puts paths in place of the names of kernels and stacks. A path is absolute, and a name has no slash.
func (o *Options) resolveNames(spec *microvm.Spec) error {
	if spec.Kernel != "" && !filepath.IsAbs(spec.Kernel) {
		path, err := kernels.Dir(o.kernelDir()).Path(spec.Kernel)
		if err != nil {
			return fmt.Errorf("Spec.Kernel: %w", err)
		}
		spec.Kernel = path
	}
	if spec.Rootfs != "" && !filepath.IsAbs(spec.Rootfs) {
		path := filepath.Join(o.TemplateDir, spec.Rootfs, stackFile)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: Spec.Rootfs: there is no stack %q in Options.TemplateDir %s, only %q", microvm.ErrInvalid, spec.Rootfs, o.TemplateDir, stacks(o.TemplateDir))
		} else if err != nil {
			return fmt.Errorf("Spec.Rootfs: %w", err)
		}
		spec.Rootfs = path
	}
	return nil
}

func (o *Options) kernelDir() string { return filepath.Join(o.StateDir, "kernels") }

// stacks returns the names of what is in a directory of stacks, sorted. One that can't be read has none.
func stacks(dir string) []string {
	names := []string{}
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if _, err := os.Stat(filepath.Join(dir, entry.Name(), stackFile)); err == nil && microvm.ValidateName(entry.Name()) == nil {
			names = append(names, entry.Name())
		}
	}
	return names
}
