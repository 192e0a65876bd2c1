//go:build linux

package kernels

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/kernel"
)

const (
	release = "6.1.0-9-cloud"
	config  = "CONFIG_X86_64=y\n"
)

func newDir(t *testing.T) Dir {
	t.Helper()
	return Dir(filepath.Join(t.TempDir(), "kernels"))
}

// tree makes a directory with files.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// vmlinuz is a packed image of a release.
func vmlinuz() string {
	unpacked := fakekernel.Vmlinux(release)
	return string(fakekernel.BzImage(release, fakekernel.WithSize(fakekernel.Zstd(unpacked), len(unpacked))))
}

// TestImport: of whatever distributions ship, what machines need comes out, and what belongs together is found.
func TestImport(t *testing.T) {
	image, module := string(fakekernel.Vmlinux(release)), string(fakekernel.Module{Release: release}.Content())
	modules := "lib/modules/" + release
	distribution := tree(t, map[string]string{"boot/vmlinuz-" + release: vmlinuz(), "boot/config-" + release: config, modules + "/kernel/virtio_blk.ko": module, modules + "/modules.builtin": ""})
	beside := tree(t, map[string]string{"vmlinux": image, "config": config, modules + "/virtio_blk.ko": module})
	alone := tree(t, map[string]string{"vmlinux": image, "elsewhere/config": config, "elsewhere/" + release + "/virtio_blk.ko": module})
	var deb fakekernel.Package
	deb.Add("boot/vmlinuz-"+release, []byte(vmlinuz()))
	deb.Add("boot/config-"+release, []byte(config))
	deb.Add(modules+"/virtio_blk.ko", []byte(module))
	packed := tree(t, map[string]string{"linux.deb": string(deb.Bytes())})
	if err := os.Symlink("/usr/src", filepath.Join(beside, modules, "build")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source  Source
		modules int
		checked bool
	}{
		"distribution": {Source{Image: distribution + "/boot/vmlinuz-" + release}, 1, true},
		"beside":       {Source{Image: beside + "/vmlinux"}, 1, true},
		"alone":        {Source{Image: alone + "/vmlinux"}, 0, false},
		"told":         {Source{Image: alone + "/vmlinux", Modules: alone + "/elsewhere/" + release, Config: alone + "/elsewhere/config"}, 1, true},
		"package":      {Source{Image: packed + "/linux.deb"}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			k, err := d.Import(t.Context(), "", c.source)
			if err != nil {
				t.Fatal(err)
			}
			if k.Name != release || k.Release != release || k.Modules != c.modules || k.Checked != c.checked || (len(k.Findings) > 0) != c.checked {
				t.Errorf("%+v", k)
			}
			if got, err := os.ReadFile(k.Vmlinux); err != nil || string(got) != image {
				t.Errorf("%d bytes of kernel, %v", len(got), err)
			}
			if path, err := d.Path(release); err != nil || path != k.Vmlinux {
				t.Errorf("%s, %v", path, err)
			}
			if exists(filepath.Join(filepath.Dir(k.Vmlinux), modules, "build")) {
				t.Error("a link was copied")
			}
			if opened, err := kernel.OpenModules(filepath.Join(filepath.Dir(k.Vmlinux), modules)); c.modules > 0 {
				if err != nil {
					t.Fatal(err)
				}
				if found, err := opened.Resolve("virtio_blk"); err != nil || len(found) != 1 || string(found[0].Content) != module {
					t.Errorf("modules %v, %v", found, err)
				}
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestImportRefuses: what is no kernel, or of another, leaves nothing.
func TestImportRefuses(t *testing.T) {
	files := tree(t, map[string]string{
		"vmlinux": string(fakekernel.Vmlinux(release)), "text": "hello", "nameless": string(fakekernel.Vmlinux("6.1+own")), "broken.deb": "!<arch>\ngarbage", "lib/modules/5.10/x.ko": "x",
	})
	d := newDir(t)
	for _, c := range []struct {
		name   string
		source Source
		says   string
	}{
		{"", Source{Image: files + "/none"}, "no such file"}, {"", Source{Image: files}, "is a directory"}, {"", Source{Image: files + "/text"}, "neither ELF"},
		{"", Source{Image: files + "/broken.deb"}, "broken.deb"}, {"", Source{Image: files + "/nameless"}, "give the kernel a name"}, {"../x", Source{Image: files + "/vmlinux"}, "invalid name"},
		{"", Source{Image: files + "/vmlinux", Modules: files + "/lib/modules/5.10"}, "modules of 5.10"}, {"", Source{Image: files + "/vmlinux", Modules: files + "/none"}, "no such file"},
		{"", Source{Image: files + "/vmlinux", Config: files + "/none"}, "no such file"},
	} {
		if _, err := d.Import(t.Context(), c.name, c.source); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want ErrInvalid that says %q", c.source, err, c.says)
		}
	}
	if names, err := d.names(); err != nil || len(names) > 0 {
		t.Errorf("there are %q, %v", names, err)
	}
	if k, err := d.Import(t.Context(), "own", Source{Image: files + "/nameless"}); err != nil || k.Name != "own" || k.Release != "6.1+own" {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestNames: several kernels are listed by name, of many that come at once under one name one is kept, and one that is removed is no more.
func TestNames(t *testing.T) {
	d := newDir(t)
	if all, err := d.List(); err != nil || len(all) > 0 {
		t.Errorf("before there is any: %v, %v", all, err)
	}
	image := filepath.Join(tree(t, map[string]string{"vmlinux": string(fakekernel.Vmlinux(release))}), "vmlinux")
	var won atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := d.Import(t.Context(), "b", Source{Image: image}); err == nil {
				won.Add(1)
			} else if !errors.Is(err, microvm.ErrExists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := d.Import(t.Context(), "a", Source{Image: image}); err != nil || won.Load() != 1 {
		t.Errorf("%v, %d of many", err, won.Load())
	}
	if err := os.Mkdir(filepath.Join(string(d), "foreign"), 0o700); err != nil {
		t.Fatal(err)
	}
	list := func() (names []string) {
		kernels, err := d.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kernels {
			names = append(names, k.Name)
		}
		return names
	}
	if got := list(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("list %q", got)
	}
	for _, name := range []string{"c", "", "..", "foreign", "a/../b"} {
		for verb, err := range map[string]error{"path": second(d.Path(name)), "get": second(d.Get(name)), "remove": d.Remove(t.Context(), name)} {
			says := `["a" "b"]`
			if microvm.ValidateName(name) != nil {
				says = "invalid name"
			}
			if !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s of %q: %v, want ErrInvalid that says %s", verb, name, err, says)
			}
		}
	}
	if err := d.Remove(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if got := list(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("list %q", got)
	}
	if stays, err := Tree(string(d)).Remove(); err != nil || !slices.Equal(stays, []string{filepath.Join(string(d), "foreign")}) {
		t.Errorf("stays %q, %v", stays, err)
	}
}

// TestWhatAKilledImportLeftGoes: the next that makes or removes a kernel removes it, and nothing of one that is being made.
func TestWhatAKilledImportLeftGoes(t *testing.T) {
	d := newDir(t)
	image := filepath.Join(tree(t, map[string]string{"vmlinux": string(fakekernel.Vmlinux(release))}), "vmlinux")
	leave := func() string {
		left := filepath.Join(string(d), newPrefix+"1234")
		if err := errors.Join(os.MkdirAll(left+"/lib", 0o700), os.WriteFile(left+"/vmlinux", []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
		return left
	}
	for what, next := range map[string]func() error{
		"import": func() error { return second(d.Import(t.Context(), "a", Source{Image: image})) },
		"remove": func() error { return d.Remove(t.Context(), "b") },
	} {
		if _, err := d.Import(t.Context(), "b", Source{Image: image}); err != nil && !errors.Is(err, microvm.ErrExists) {
			t.Fatal(err)
		}
		left := leave()
		if err := next(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s leaves it: %v", what, err)
		}
	}
	lock, err := flock.Dir(t.Context(), string(d)) // as one has that is under way
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	left := leave()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Import(ctx, "c", Source{Image: image}); !errors.Is(err, microvm.ErrBusy) {
		t.Errorf("beside another: %v", err)
	}
	if _, err := os.Lstat(left); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestCheck: a configuration is checked as it is, a kernel with the one that belongs to it.
func TestCheck(t *testing.T) {
	files := tree(t, map[string]string{"a/vmlinux": string(fakekernel.Vmlinux(release)), "a/config-" + release: config, "b/vmlinux": string(fakekernel.Vmlinux(release))})
	for path, ok := range map[string]bool{"a/vmlinux": true, "a/config-" + release: true, "b/vmlinux": false, "c": false} {
		findings, err := Check(filepath.Join(files, path))
		if ok != (err == nil) || ok && kernel.Worst(findings) != kernel.SeverityError || !ok && !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %d findings, %v", path, len(findings), err)
		}
	}
}

// TestRealDistributionKernel: the distribution's kernel lacks nothing that machines need.
func TestRealDistributionKernel(t *testing.T) {
	p := ring.Real(t)
	k, err := newDir(t).Import(t.Context(), "", Source{Image: p.Vmlinuz})
	if err != nil {
		t.Fatal(err)
	}
	if !k.Checked || kernel.Worst(k.Findings) == kernel.SeverityError || k.Modules < 100 || k.Release != filepath.Base(p.Modules) {
		t.Errorf("%+v", k)
	}
}
