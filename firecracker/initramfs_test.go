//go:build linux

package firecracker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// kernelIn writes a kernel of a release into a directory of its own, beside modules of another release, or none.
func kernelIn(t *testing.T, release, modules string) (kernel, tree string) {
	t.Helper()
	dir := t.TempDir()
	kernel = filepath.Join(dir, "vmlinux")
	if err := os.WriteFile(kernel, fakekernel.Vmlinux(release), 0o600); err != nil {
		t.Fatal(err)
	}
	if modules != "" {
		tree = modulesIn(t, dir, modules, modules)
	}
	return kernel, tree
}

// modulesIn makes a tree of what the agent needs, in a directory named after one release, of modules of another.
func modulesIn(t *testing.T, dir, name, release string) string {
	t.Helper()
	var modules []fakekernel.Module
	for _, module := range guestModules {
		modules = append(modules, fakekernel.Module{File: module + ".ko", Release: release})
	}
	tree, err := fakekernel.WriteModules(dir, name, nil, modules...)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestModulesAreOfTheKernel holds the modules in the initial RAM file system against the kernel that is to load them, which would refuse them at boot.
func TestModulesAreOfTheKernel(t *testing.T) {
	const one, two = "6.1.0-56-cloud-amd64", "6.12.9-cloud-amd64"
	whole, wholeTree := kernelIn(t, one, one)
	other, _ := kernelIn(t, two, two)
	wrong, wrongTree := kernelIn(t, one, two)
	alone, _ := kernelIn(t, one, "")
	linked := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(wholeTree, linked); err != nil {
		t.Fatal(err)
	}
	noLinux := filepath.Join(t.TempDir(), "tiny")
	if err := tinyguest.Write(noLinux, tinyguest.Program{}); err != nil {
		t.Fatal(err)
	}
	renamed := modulesIn(t, t.TempDir(), one, two)
	for name, c := range map[string]struct {
		kernel, ofOptions, modules string // Spec.Kernel, Options.Kernel and Options.Modules
		want                       string // the release whose modules there are
		words                      []string
	}{
		"beside the kernel":             {whole, whole, "", one, nil},
		"of the options":                {alone, alone, wholeTree, one, nil},
		"of the options, by a link":     {alone, alone, linked, one, nil},
		"the options' are of another":   {other, whole, wholeTree, two, nil},
		"wrong ones beside the kernel":  {wrong, wrong, "", "", []string{wrong, one, two, "put lib/modules/" + one}},
		"wrong ones in the options":     {alone, alone, wrongTree, "", []string{alone, one, wrongTree, two, "MICROVM_KERNEL_MODULES"}},
		"wrong ones in the right place": {alone, alone, renamed, "", []string{alone, one, two, "MICROVM_KERNEL_MODULES"}},
		"none":                          {alone, whole, wholeTree, "", []string{alone, one, "put lib/modules/" + one}},
		"not Linux":                     {noLinux, noLinux, wholeTree, "", []string{noLinux, "Spec.Initrd"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := fakeOptions(t, fakevmm.Faults{})
			o.Kernel, o.Modules, o.Agent = c.ofOptions, c.modules, "/proc/self/exe"
			rt, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer rt.Close()
			_, err = rt.Create(t.Context(), "machine", microvm.Spec{Image: whole, Kernel: c.kernel, LayerMiB: 16}) // no VMM looks into the image
			if c.want == "" {
				invalidSaying(t, err, c.words)
			} else if err != nil {
				t.Error(err)
			}
			checkModules(t, o.StateDir, c.want)
		})
	}
}

func invalidSaying(t *testing.T, err error, words []string) {
	t.Helper()
	if !errors.Is(err, microvm.ErrInvalid) {
		t.Fatalf("%v, want ErrInvalid", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v\ndoes not say %q", err, word)
		}
	}
}

// checkModules looks for modules in the initial RAM file systems of a store: those of one release, or none.
func checkModules(t *testing.T, state, release string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(state, "store", "files", "*"))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(text, []byte("070701")) {
			got += bytes.Count(text, []byte("vermagic="+release+" SMP"))
		}
	}
	want := len(guestModules)
	if release == "" {
		want = 0
	}
	if got != want {
		t.Errorf("%d modules are of %q, want %d", got, release, want)
	}
}
