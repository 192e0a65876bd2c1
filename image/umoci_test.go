//go:build linux

package image_test

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// attributes adds extended attributes.
func attributes(pairs ...string) func(h *tar.Header) {
	return func(h *tar.Header) {
		h.PAXRecords = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			h.PAXRecords["SCHILY.xattr."+pairs[i]] = pairs[i+1]
		}
	}
}

func at(seconds, nanoseconds int64) func(h *tar.Header) {
	return func(h *tar.Header) { h.ModTime = time.Unix(seconds, nanoseconds) }
}

func mode(mode int64) func(h *tar.Header) { return func(h *tar.Header) { h.Mode = mode } }

func owner(uid, gid int) func(h *tar.Header) {
	return func(h *tar.Header) { h.Uid, h.Gid = uid, gid }
}

// capability is security.capability of cap_net_raw+ep, as setcap writes it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// lowest is a layer with everything that a file can be.
func lowest() []entry {
	access, standard := string(acl()), string(acl())
	return []entry{
		dir("./").with(at(1e9, 5)), dir("tmp").with(mode(0o1777)), dir("shared").with(mode(0o2770)).with(owner(0, 42)),
		file("suid", "#!").with(mode(0o4755)), file("both", "#!").with(mode(0o6711)).with(owner(1000, 70000)), file("nothing", "").with(mode(0)), file("secret", "s").with(mode(0o400)).with(owner(4294967294, 4294967294)),
		file("ping", "elf").with(mode(0o755)).with(attributes("security.capability", capability)),
		file("user", "x").with(attributes("user.binary", "a\x00b\xff=\n", "user.long", strings.Repeat("v", 2000), "user.x", "1", "trusted.t", "2", "security.other", "3")),
		file("many", "x").with(attributes("user.aaaaaaaa", strings.Repeat("1", 300), "user.b", strings.Repeat("2", 300), "user.cc", strings.Repeat("3", 300), "trusted.overlong", strings.Repeat("4", 300), "security.z", strings.Repeat("5", 300))),
		dir("acls").with(mode(0o750)).with(attributes("system.posix_acl_access", access, "system.posix_acl_default", standard)),
		file("acls/file", "acl").with(mode(0o750)).with(attributes("system.posix_acl_access", access)),
		symlink("trusted", "x").with(attributes("trusted.of.a.link", "yes")),
		file("old", "1969").with(at(-1, 999999999)), file("older", "1935").with(at(-1<<30, 1)), file("oldest", "1901").with(at(-1<<31, 0)), file("epoch", "").with(at(0, 0)),
		file("late", "2040").with(at(0x8000_0000, 7)), file("later", "2106").with(at(0x1_0000_0001, 8)), file("latest", "2200").with(at(7258118400, 9)), dir("latedir").with(at(0xffff_ffff, 10)),
		file("hard", "one inode"), hardlink("hard2", "hard"), dir("d"), hardlink("d/hard3", "hard2"), symlink("sym", "hard"), hardlink("symhard", "sym"),
		node(tar.TypeChar, "null", 1, 3), node(tar.TypeBlock, "disk", 259, 70000), node(tar.TypeFifo, "fifo", 0, 0), hardlink("nullhard", "null"), node(tar.TypeChar, "zero", 0, 0),
		symlink("abs", "/d/x"), symlink("dangling", "no/where"), symlink("loop", "loop"), symlink("s59", block[:59]), symlink("s60", block[:60]), symlink("slong", block[:4000]),
		file(long, "long"), dir("unsaid"), file("unsaid/"+strings.Repeat("deep/", 60)+"file", "deep"), file("sp ace\nnew\\line", "odd"), file("\xff\xfe", "not UTF-8"), file("ünï", "UTF-8"), file("\\back", "slash"), file(".wh", "no whiteout"),
		file("empty", ""), file("block", block), file("more", block+"x"), file("big", strings.Repeat(block, 300)+"end"),
		dir("usr"), dir("usr/lib"), symlink("lib64", "usr/lib"), symlink("abslib", "/usr/lib"), symlink("outlib", "../../../usr/lib"),
		dir("gone"), file("gone/file", "g"), dir("opaque"), file("opaque/below", "b"), dir("opaque/dir"), file("opaque/dir/below", "b"), file("replaced", "file"), dir("todir"), file("todir/x", "x"),
		dir("same"), file("same/stays", "s"), file("kept", "old content"), hardlink("keptlink", "kept"), file("linkgone", "l"), hardlink("linkstays", "linkgone"),
		file("./dotted/../undotted", "u"), file("/absolute", "a"), file("../../up", "up"),
	}
}

// middle is a layer that changes the lowest in all ways.
func middle() []entry {
	return []entry{
		file(".wh.gone", ""), dir("opaque"), file("opaque/.wh..wh..opq", ""), file("opaque/above", "a"), dir("replaced"), file("replaced/x", "now a directory"), file("todir", "now a file"),
		dir("same").with(mode(0o700)).with(owner(5, 6)).with(at(1e9+7, 8)), file("kept", "new content"), file(".wh.linkgone", ""), hardlink("linknew", "linkstays"), hardlink("newname", "suid"),
		file("lib64/through", "a link"), file("abslib/abs", "a link"), file("outlib/out", "a link"), hardlink("viahard", "lib64/through"), file(".wh.nowhere", ""), file("no/.wh.where", ""),
		file("acls/.wh.file", ""), symlink("usr/lib/self", "."), dir("d/e"), file("d/e/.wh..wh..opq", ""), file("tmp/in", "x"), symlink("d/hard3", "replaced a hard link"), dir("dangling2"), file("nullhard", "no device any more"),
	}
}

// highest is a layer whose whiteouts come after what they must not touch.
func highest() []entry {
	return []entry{
		file("opaque/again", "z"), file("opaque/.wh..wh..opq", ""), dir("same"), file("same/new", "n"), file(".wh.same", ""), file("d/e/late", "l"), file("d/.wh.e", ""), file("d/.wh.hard3", ""), file("d/hard3", "again"),
		dir("gone"), file("gone/anew", "a"), file(".wh.sym", ""), hardlink("sym", "symhard"), file("lib64/self/self/deep", "through links"), file("unsaid/parents/file", "i"), dir("same"), // umoci forgets its time at the whiteout
	}
}

// sparseLayer is what GNU tar makes of files with holes.
func sparseLayer(t *testing.T, format string) []byte {
	t.Helper()
	tree := t.TempDir()
	f, err := os.Create(filepath.Join(tree, "sparse-"+format))
	f = must(t, f, err)
	for _, offset := range []int64{0, 1 << 20, 5<<20 + 123} {
		if _, err := f.WriteAt([]byte("data at "+fmt.Sprint(offset)), offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(9<<20 + 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "--sparse", "--format="+format, "-C", tree, "-c", filepath.Base(f.Name())).Output()
	return must(t, out, err)
}

// TestHostEqualToUmoci holds a base against what umoci unpacks of the same layers, file for file.
func TestHostEqualToUmoci(t *testing.T) {
	ring.Host(t)
	work := t.TempDir()
	img := imageOf(t, nil, layerOf(t, tarOf(t, lowest()...), compression.GZip), layerOf(t, tarOf(t, middle()...), compression.None), layerOf(t, tarOf(t, highest()...), compression.GZip),
		layerOf(t, sparseLayer(t, "posix"), compression.GZip)) // umoci refuses the GNU form
	writeLayout(t, filepath.Join(work, "layout"), "tricky", img)
	cmd := exec.Command("umoci", "unpack", "--image", filepath.Join(work, "layout")+":tricky", filepath.Join(work, "bundle"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v: %s", err, out)
	}
	made, err := openStore(t, filepath.Join(work, "store")).Import(t.Context(), filepath.Join(work, "layout"), "tricky", &image.ImportOptions{Platform: "linux/amd64"})
	made = must(t, made, err)
	open(t, made.Path) // e2fsck
	want, got := describe(t, filepath.Join(work, "bundle/rootfs")), describe(t, mount(t, made.Path))
	delete(got, "lost+found")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if want[name] != got[name] {
			t.Errorf("%q:\numoci %s\nours  %s", name, want[name], got[name])
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%q is only ours: %s", name, got[name])
	}
	if len(want) < 100 {
		t.Errorf("only %d files were compared", len(want))
	}
}

// mount mounts a base as a machine does.
func mount(t *testing.T, base string) string {
	t.Helper()
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro,noload", base, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return at
}

// describe says all that there is to say of each file.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	groups := map[uint64][]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(path, &stat); err != nil {
			return err
		}
		changed := fmt.Sprintf("%d.%09d", stat.Mtim.Sec, stat.Mtim.Nsec)
		if unsaid(name) {
			changed = "unsaid"
		}
		text := fmt.Sprintf("%o %d:%d mtime %s rdev %x", stat.Mode, stat.Uid, stat.Gid, changed, stat.Rdev)
		switch stat.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			sum, err := sumOf(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d bytes sha256 %x", stat.Size, sum)
		case syscall.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" to %q", target)
		}
		attributes, err := xattrsOf(path)
		files[name] = text + attributes
		if !e.IsDir() {
			groups[stat.Ino] = append(groups[stat.Ino], name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range groups {
		for _, name := range names {
			files[name] += fmt.Sprintf(" names %q", names) // WalkDir's order
		}
	}
	return files
}

// unsaid says whether a directory, or one in it, is described by no layer: when it was changed then depends on who unpacks.
func unsaid(name string) bool {
	return name == "unsaid" || strings.HasPrefix(name, "unsaid/") && (filepath.Base(name) == "deep" || filepath.Base(name) == "parents")
}

func sumOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return hash.Sum(nil), err
}

// xattrsOf returns all extended attributes.
func xattrsOf(path string) (text string, err error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", fmt.Errorf("llistxattr %s: %w", path, err)
	}
	names := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
	for _, name := range slices.Sorted(slices.Values(names)) {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("lgetxattr %s of %s: %w", name, path, err)
		}
		text += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return text, nil
}
