//go:build linux

package image_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/image"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// checkMade holds what is said of an image against the file.
func checkMade(t *testing.T, made image.Base, path string, beside ...string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if made != (image.Base{Path: path, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(text))}) {
		t.Errorf("%+v: it has %d bytes, sha256 %x", made, len(text), sum)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o444 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1+len(beside) {
		t.Errorf("%v, %v; want the image alone", entries, err)
	}
}

// acl is an access control list as setxattr(2) takes it: the owner, user 1000, the group, the mask, others.
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, 1<<32 - 1}, {2, 5, 1000}, {4, 4, 1<<32 - 1}, {0x10, 5, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// TestHostFromDir keeps what only root can give a file.
func TestHostFromDir(t *testing.T) {
	ring.Host(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	modified := time.Unix(1700000000, 123456789)
	listener, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = errors.Join(
		os.Chmod(dir, 0o755), os.Mkdir(in("sub"), 0o700), os.Chmod(in("sub"), 0o2770|os.ModeSetgid), os.Chown(in("sub"), 0, 42),
		os.WriteFile(in("sub/file"), []byte("hello"), 0o600), os.Chown(in("sub/file"), 1000, 70000), os.Chmod(in("sub/file"), 0o711|os.ModeSetuid),
		os.Link(in("sub/file"), in("hard")), os.Symlink("sub/file", in("link")), os.Lchown(in("link"), 7, 8), os.Link(in("link"), in("hardlink")),
		syscall.Mknod(in("null"), syscall.S_IFCHR|0o666, 1<<8|3), syscall.Mknod(in("disk"), syscall.S_IFBLK|0o660, 8<<8|17), syscall.Mkfifo(in("fifo"), 0o640),
		os.Chmod(in("null"), 0o666), os.Chmod(in("disk"), 0o660), os.Chmod(in("fifo"), 0o640),
		syscall.Setxattr(in("sub/file"), "user.name", []byte("a\x00b"), 0), syscall.Setxattr(in("sub"), "trusted.name", []byte("v"), 0),
		syscall.Setxattr(in("sub"), "system.posix_acl_access", acl(), 0), syscall.Setxattr(in("sub"), "system.posix_acl_default", acl(), 0),
		os.Chtimes(in("sub/file"), time.Now(), modified),
	)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "base")
	made, err := image.FromDir(t.Context(), dir, path)
	if err != nil {
		t.Fatal(err)
	}
	checkMade(t, made, path)
	e := open(t, path)
	e.has("/", "Type: directory", "Mode: 0755", "User: 0 Group: 0")
	e.has("/sub/file", "Type: regular", "Mode: 04711", "User: 1000 Group: 70000 Size: 5", "Links: 2", "mtime: 0x6553f100:1d6f3454", "user.name (3) = 61 00 62")
	e.has("/hard", "User: 1000 Group: 70000 Size: 5", "Links: 2")
	e.has("/link", "Type: symlink", "User: 7 Group: 8", "Links: 2", `Fast link dest: "sub/file"`)
	e.has("/null", "Type: character special", "Mode: 0666", "major/minor number: 01:03")
	e.has("/disk", "Type: block special", "Mode: 0660", "major/minor number: 08:17")
	e.has("/fifo", "Type: FIFO", "Mode: 0640")
	disk := "01 00 00 00 01 00 07 00 02 00 05 00 e8 03 00 00 04 00 04 00 10 00 05 00 20 00 00 00" // version 1, in which only user 1000 has an id (fs/ext4/acl.h)
	e.has("/sub", "Type: directory", "Group: 42", `trusted.name (1) = "v"`)
	for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		e.has("/sub", name+" (28) = "+disk)
	}
	if e.stat("/socket") != "" {
		t.Error("a socket is in the image")
	}
	if again, err := image.FromDir(t.Context(), dir, path); err != nil || again != made {
		t.Errorf("once more: %+v, %v; want %+v", again, err, made)
	}
}

func TestFromDir(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "base")
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte("middle"), 5<<20)
	err = errors.Join(err, sparse.Truncate(8<<20+1), sparse.Close(), os.MkdirAll(filepath.Join(dir, deep), 0o755), os.WriteFile(filepath.Join(dir, long), []byte("long"), 0o640),
		os.Symlink("loop", filepath.Join(dir, "loop")))
	if err != nil {
		t.Fatal(err)
	}
	made, err := image.FromDir(t.Context(), dir, path)
	if err != nil {
		t.Fatal(err)
	}
	checkMade(t, made, path)
	e := open(t, path)
	want := make([]byte, 8<<20+1)
	copy(want[5<<20:], "middle")
	if got := e.content("/sparse"); got != string(want) {
		t.Errorf("the sparse file has %d bytes", len(got))
	}
	e.has("/"+long, "Mode: 0640", "Size: 4")
	e.has("/"+deep, "Type: directory")
	e.has("/loop", `Fast link dest: "loop"`)
}

func TestFromDirRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{file, filepath.Join(dir, "none")} {
		if _, err := image.FromDir(t.Context(), from, filepath.Join(t.TempDir(), "base")); err == nil {
			t.Errorf("%s was taken for a directory", from)
		}
	}
	if _, err := image.FromDir(t.Context(), dir, filepath.Join(dir, "none", "base")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory for the image: %v", err)
	}
}
