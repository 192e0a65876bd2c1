package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
)

// treeOf makes a tree of modules by their files, each with what it depends on.
func treeOf(t *testing.T, depends map[string]string, builtin ...string) *Modules {
	t.Helper()
	var modules []fakekernel.Module
	packs := map[string]func([]byte) []byte{".xz": fakekernel.XZ, ".gz": fakekernel.Gzip, ".zst": fakekernel.Zstd}
	for file, depends := range depends {
		modules = append(modules, fakekernel.Module{File: file, Release: testRelease, Depends: depends, Pack: packs[filepath.Ext(file)]})
	}
	dir, err := fakekernel.WriteModules(t.TempDir(), testRelease, builtin, modules...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := OpenModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestResolve(t *testing.T) {
	m := treeOf(t, map[string]string{
		"net/virtio_net.ko":         "net_failover,virtio,virtio-ring",
		"net/net_failover.ko.xz":    "failover",
		"net/failover.ko.gz":        "",
		"virtio/virtio.ko.zst":      "virtio-ring",
		"virtio/virtio-ring.ko":     "",
		"fs/needs-builtin.ko":       "crc16,ext4",
		"circle/a.ko":               "b",
		"circle/b.ko":               "c",
		"circle/c.ko":               "a",
		"circle/self.ko":            "self",
		"missing/needs-missing.ko":  "needs_it",
		"missing/needs_it.ko":       "not-there",
		"virtio/virtio.ko.unsigned": "odd",
		"modules.dep":               "odd",
	}, "fs/ext4/ext4", "lib/crc16", "fs/fat-fs")
	for _, c := range []struct {
		names, want string // what is asked for, and what is to be loaded, in order
	}{
		{"failover", "failover"},
		{"virtio_net", "failover net_failover virtio_ring virtio virtio_net"},
		{"virtio virtio_net", "virtio_ring virtio failover net_failover virtio_net"},
		{"virtio-net virtio_net virtio-net", "failover net_failover virtio_ring virtio virtio_net"},
		{"virtio_ring virtio-ring", "virtio_ring"},
		{"needs_builtin ext4 fat_fs fat-fs", "needs_builtin"},
		{"ext4", ""},
		{"", ""},
		{"a", "c b a"},
		{"b", "a c b"},
		{"self", "self"},
	} {
		modules, err := m.Resolve(strings.Fields(c.names)...)
		if got := moduleNames(modules); err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("Resolve(%s) = %s, %v; want %s", c.names, got, err, c.want)
		}
		for _, module := range modules {
			if _, err := elf.NewFile(bytes.NewReader(module.Content)); err != nil {
				t.Errorf("%s is not uncompressed: %v", module.Name, err)
			}
		}
	}
	for names, words := range map[string][]string{"nobody": {"nobody", testRelease}, "needs-missing": {"not_there", "needed by needs_missing → needs_it"}} {
		if _, err := m.Resolve("virtio", names); !errors.Is(err, ErrMissingModule) {
			t.Errorf("Resolve(%s): %v, want ErrMissingModule", names, err)
		} else {
			for _, word := range words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("Resolve(%s): %v: does not say %q", names, err, word)
				}
			}
		}
	}
}

func TestResolveChecksVermagic(t *testing.T) {
	dir, err := fakekernel.WriteModules(t.TempDir(), testRelease, nil,
		fakekernel.Module{File: "right.ko", Release: testRelease},
		fakekernel.Module{File: "wrong.ko", Release: "6.1.0-55-cloud-amd64"},
		fakekernel.Module{File: "longer.ko", Release: testRelease + "-dbg"},
		fakekernel.Module{File: "needs.ko", Release: testRelease, Depends: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, link, dir + "/"} {
		m, err := OpenModules(dir)
		if err != nil {
			t.Fatal(err)
		}
		if modules, err := m.Resolve("right"); err != nil || len(modules) != 1 || m.Release() != testRelease {
			t.Errorf("%s: %v of %s, %v", dir, modules, m.Release(), err)
		}
		for _, name := range []string{"wrong", "longer", "needs"} {
			if modules, err := m.Resolve(name); !errors.Is(err, ErrVermagic) || !strings.Contains(err.Error(), testRelease) || modules != nil {
				t.Errorf("%s: %s: %v, want ErrVermagic", dir, name, err)
			}
		}
	}
}

// TestResolveRefusesWhatIsNoModule whole, cut or of another kind.
func TestResolveRefusesWhatIsNoModule(t *testing.T) {
	dir, err := fakekernel.WriteModules(t.TempDir(), testRelease, nil)
	if err != nil {
		t.Fatal(err)
	}
	content := fakekernel.Module{Release: testRelease}.Content()
	files := map[string][]byte{
		"whole.ko": content, "cut.ko": content[:100], "text.ko": []byte("hello"), "empty.ko": nil, "kernel.ko": fakekernel.Vmlinux(testRelease),
		"cut-xz.ko.xz": fakekernel.XZ(content)[:80], "cut-gz.ko.gz": fakekernel.Gzip(content)[:80], "cut-zst.ko.zst": fakekernel.Zstd(content)[:80],
		"plain.ko.xz": content, "plain-gz.ko.gz": content, "plain-zst.ko.zst": content,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := OpenModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	for file := range files {
		name, _, _ := strings.Cut(file, ".")
		if _, err := m.Resolve(name); (err == nil) != (name == "whole") || err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := OpenModules(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// TestModulesAreBounded refuses a module that is too large, which used to be cut.
func TestModulesAreBounded(t *testing.T) {
	dir, err := fakekernel.WriteModules(t.TempDir(), testRelease, nil)
	if err != nil {
		t.Fatal(err)
	}
	module := fakekernel.Module{Release: testRelease}.Content()
	for name, size := range map[string]int64{"largest.ko": maxModule, "larger.ko": maxModule + 1} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, module, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := OpenModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	if modules, err := m.Resolve("largest"); err != nil || len(modules[0].Content) != maxModule {
		t.Errorf("the largest: %v", err)
	}
	if _, err := m.Resolve("larger"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("one byte more: %v", err)
	}
}

func TestReadAtMost(t *testing.T) {
	const limit = 100 << 10
	for form, pack := range map[string]func([]byte) []byte{"": bytes.Clone, "gzip": fakekernel.Gzip, "xz": fakekernel.XZ, "zstd": fakekernel.Zstd, "lz4": fakekernel.LZ4} {
		for size, ok := range map[int]bool{0: true, 1: true, limit: true, limit + 1: false} {
			content := bytes.Repeat([]byte{'x'}, size)
			got, err := readAtMost(form, bytes.NewReader(pack(content)), limit)
			if (err == nil) != ok || ok && !bytes.Equal(got, content) {
				t.Errorf("%q, %d bytes: %d, %v", form, size, len(got), err)
			}
		}
	}
	if _, err := readAtMost("bzip2", bytes.NewReader(nil), limit); !errors.Is(err, ErrFormat) {
		t.Errorf("another form: %v, want ErrFormat", err)
	}
}
