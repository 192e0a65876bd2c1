package kernel

import (
	"fmt"
	"io"
	"strings"
)

// Cpio writes an archive in the form that Linux unpacks as an initial RAM file system: "newc" (Documentation/driver-api/early-userspace/buffer-format.rst). All
// files are root's, with the time 0, so that the same input gives the same bytes.
type Cpio struct {
	w     io.Writer
	inode int
	at    int
	err   error
}

// File types in a mode (inode(7)).
const (
	typeDir    = 0o040000
	typeFile   = 0o100000
	typeLink   = 0o120000
	typeDevice = 0o020000
)

// NewCpio returns a writer of one archive.
func NewCpio(w io.Writer) *Cpio { return &Cpio{w: w} }

// Dir adds a directory. Names have no leading slash; parents come first.
func (c *Cpio) Dir(name string, mode uint32) { c.entry(name, typeDir|mode, 0, 0, nil) }

// File adds a regular file.
func (c *Cpio) File(name string, mode uint32, content []byte) {
	c.entry(name, typeFile|mode, 0, 0, content)
}

// Link adds a symbolic link.
func (c *Cpio) Link(name, target string) { c.entry(name, typeLink|0o777, 0, 0, []byte(target)) }

// CharDevice adds a character device.
func (c *Cpio) CharDevice(name string, mode uint32, major, minor int) {
	c.entry(name, typeDevice|mode, major, minor, nil)
}

// Close ends the archive and returns the first error of all calls. The writer stays open.
func (c *Cpio) Close() error {
	c.write(trailer, 0, 0, 0, nil)
	return c.err
}

// trailer is the name of the entry that ends an archive.
const trailer = "TRAILER!!!"

// entry adds what can be said in this form. A link's target, too, is a path of at most PATH_MAX with its end.
func (c *Cpio) entry(name string, mode uint32, major, minor int, content []byte) {
	const longest = 4095
	bad := name == "" || name[0] == '/' || name == trailer || len(name) > longest || strings.Contains(name, "\x00") || len(content) > 1<<31-1
	if mode&0o170000 == typeLink {
		bad = bad || len(content) == 0 || len(content) > longest
	}
	if c.err == nil && bad {
		c.err = fmt.Errorf("cpio: name %q, %d bytes: can't be said in this form", name, len(content))
	}
	c.write(name, mode, major, minor, content)
}

func (c *Cpio) write(name string, mode uint32, major, minor int, content []byte) {
	c.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	c.put([]byte(header + name + "\x00"))
	c.pad()
	c.put(content)
	c.pad()
}

func (c *Cpio) pad() { c.put(make([]byte, -c.at&3)) }

func (c *Cpio) put(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.at += n
	c.err = err
}
