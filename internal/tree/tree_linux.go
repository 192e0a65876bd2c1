package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// noWait opens a named pipe, put in a file's place, without waiting for its writer.
const noWait = syscall.O_NONBLOCK

const (
	xattrPrefix = "SCHILY.xattr." // of PAX records
	capability  = "security.capability"
	maxXattr    = 64 << 10 // XATTR_SIZE_MAX, XATTR_LIST_MAX
)

// linked says whether a file may have several names, and which it is.
func linked(info fs.FileInfo) (inode, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.IsDir() || stat.Nlink < 2 {
		return inode{}, false
	}
	return inode{uint64(stat.Dev), stat.Ino}, true
}

// byDescriptor is a name of an open file.
func byDescriptor(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// taken says which extended attributes are copied: the users' own, and capabilities.
func taken(name string) bool { return strings.HasPrefix(name, "user.") || name == capability }

// readXattrs adds a file's extended attributes to its header, where its file system has some.
func readXattrs(header *tar.Header, f *os.File) {
	if n, err := syscall.Listxattr(byDescriptor(f), nil); err != nil || n == 0 {
		return
	}
	list := make([]byte, maxXattr)
	n, err := syscall.Listxattr(byDescriptor(f), list)
	if err != nil {
		return
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !taken(name) {
			continue
		}
		value := make([]byte, maxXattr)
		n, err := syscall.Getxattr(byDescriptor(f), name, value)
		if err != nil {
			continue
		}
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[xattrPrefix+name] = string(value[:n])
	}
}

// writeXattrs gives a file the attributes of its header, where its file system can have them.
func writeXattrs(header *tar.Header, f *os.File, privileged bool) error {
	for key, value := range header.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !taken(name) || name == capability && !privileged {
			continue
		}
		err := syscall.Setxattr(byDescriptor(f), name, []byte(value), 0)
		if err != nil && !errors.Is(err, syscall.ENOTSUP) {
			return fmt.Errorf("attribute %q: %w", short(name), err)
		}
	}
	return nil
}

// makeNode makes a device or a named pipe.
func makeNode(root *os.Root, name string, header *tar.Header) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeChar: syscall.S_IFCHR, tar.TypeBlock: syscall.S_IFBLK, tar.TypeFifo: syscall.S_IFIFO}[header.Typeflag]
	major, minor := uint64(header.Devmajor), uint64(header.Devminor)
	if major > 1<<12-1 || minor > 1<<20-1 {
		return fmt.Errorf("%w: device %d:%d", ErrUnsafe, header.Devmajor, header.Devminor)
	}
	device := minor&0xff | major<<8 | (minor&^0xff)<<12 // makedev(3), within those bounds
	return syscall.Mknodat(int(dir.Fd()), path.Base(name), kind|0o600, int(device))
}
