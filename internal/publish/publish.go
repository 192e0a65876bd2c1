//go:build linux

// Package publish keeps whose the host's ports are.
//
// There is only one type: a [Book] of the ports of one state directory, which any number of processes may use at once. That a packet to a port comes to the machine is the network's
// part.
//
//	DIR/port/PROTOCOL-PORT-ADDRESS   symbolic link whose text is the owner
//	DIR/lock                         held while ports are taken or given back
//
// # Caveats
//
// A port stays its owner's until it is given back, or the owner is gone. 0.0.0.0 is every address: it and one address can't both be taken at one port.
package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// HeldError says that another machine has a port. It matches microvm.ErrBusy.
type HeldError struct {
	Port   microvm.Port
	Holder string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s port %v of the host is published by %s", e.Port.Protocol, e.Port.Host, e.Holder)
}

// Is makes errors.Is(err, microvm.ErrBusy) true.
func (e *HeldError) Is(target error) bool { return target == microvm.ErrBusy }

// Book is the ports of one state directory.
type Book struct {
	dir   string
	lives func(owner string) bool
	host  *netns.Namespace
}

// Open makes the book's directories where they are missing. Lives says whether an owner is still there. The ports are those of the namespace host, which must stay open as long as the
// book is used; of nil they are those of the namespace that the program was started in.
func Open(dir string, lives func(owner string) bool, host *netns.Namespace) (*Book, error) {
	for _, sub := range []string{"", "port"} {
		if err := disk.MakeDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	return &Book{dir, lives, host}, lock.Close()
}

// Tree says what is ours in the directory of a book.
func Tree(dir string) tidy.Tree {
	link := func(dir string, entry fs.DirEntry) bool { return entry.Type() == fs.ModeSymlink }
	lock := func(_ string, entry fs.DirEntry) bool { return entry.Name() == "lock" }
	return tidy.Tree{Dir: dir, Ours: lock, Below: []tidy.Tree{{Dir: "port", Ours: link}}}
}

// Take makes ports the owner's, and gives back those that it had beside them: all or, with an error, nothing. Ports without a host's side are nobody's. A *[HeldError] when another
// has one; microvm.ErrBusy when a program of the host's listens there, microvm.ErrInvalid when the address is not the host's.
func (b *Book) Take(ctx context.Context, owner string, ports []microvm.Port) error {
	lock, err := flock.Lock(ctx, filepath.Join(b.dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	taken, err := b.taken()
	if err != nil {
		return err
	}
	var wanted []string
	for _, port := range ports {
		if port.Host == (netip.AddrPort{}) {
			continue
		}
		name := nameOf(port)
		if taken[name] != owner {
			if err := b.free(taken, owner, port); err != nil {
				return err
			}
		}
		wanted = append(wanted, name)
	}
	return b.exchange(taken, owner, wanted)
}

// Owners returns who has ports, and the host's side of each.
func (b *Book) Owners() (map[string][]microvm.Port, error) {
	taken, err := b.taken()
	owners := map[string][]microvm.Port{}
	for name, owner := range taken {
		port, _ := parse(name) // of what is no port's name the zero value: nobody's record has it
		owners[owner] = append(owners[owner], port)
	}
	return owners, err
}

// Return gives all ports of an owner back.
func (b *Book) Return(ctx context.Context, owner string) error { return b.Take(ctx, owner, nil) }

// free says whether the owner can have a port.
func (b *Book) free(taken map[string]string, owner string, port microvm.Port) error {
	for name, holder := range taken {
		other, ok := parse(name)
		if ok && holder != owner && port.Clashes(other) && b.lives(holder) {
			return &HeldError{port, holder}
		}
	}
	return b.listens(port)
}

// listens tries whether the host's address takes a listener: who publishes a port takes it from whatever program has it.
func (b *Book) listens(port microvm.Port) error {
	err := b.host.Do(func() error {
		var opened io.Closer
		var err error
		if port.Protocol == egress.TCP {
			opened, err = net.Listen("tcp4", port.Host.String())
		} else {
			opened, err = net.ListenPacket("udp4", port.Host.String())
		}
		if err != nil {
			return err
		}
		return opened.Close()
	})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: a program of the host listens at %s port %v", microvm.ErrBusy, port.Protocol, port.Host)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: publish %s port %v: no address of the host (take one of its own, or 0.0.0.0)", microvm.ErrInvalid, port.Protocol, port.Host)
	}
	return err
}

// exchange takes first, so that what an interrupted call leaves is too much rather than too little.
func (b *Book) exchange(taken map[string]string, owner string, wanted []string) error {
	var made []string
	for _, name := range wanted {
		if taken[name] == owner {
			continue
		}
		if taken[name] != "" { // of one who is gone
			os.Remove(b.path(name))
		}
		if err := os.Symlink(owner, b.path(name)); err != nil {
			for _, name := range made {
				os.Remove(b.path(name))
			}
			return err
		}
		made = append(made, name)
	}
	var errs []error
	for name, holder := range taken {
		if holder == owner && !slices.Contains(wanted, name) {
			errs = append(errs, os.Remove(b.path(name)))
		}
	}
	if len(made) > 0 { // else, after a power cut, two machines could have one port
		errs = append(errs, disk.SyncDir(filepath.Join(b.dir, "port")))
	}
	return errors.Join(errs...)
}

// taken returns the owner of each port that is taken.
func (b *Book) taken() (map[string]string, error) {
	entries, err := os.ReadDir(filepath.Join(b.dir, "port"))
	if err != nil {
		return nil, err
	}
	taken := make(map[string]string, len(entries))
	for _, entry := range entries {
		owner, err := os.Readlink(b.path(entry.Name()))
		if err != nil {
			return nil, err
		}
		taken[entry.Name()] = owner
	}
	return taken, nil
}

func (b *Book) path(name string) string { return filepath.Join(b.dir, "port", name) }

func nameOf(port microvm.Port) string {
	return fmt.Sprintf("%s-%d-%s", port.Protocol, port.Host.Port(), port.Host.Addr())
}

// parse returns the host's side of what nameOf named.
func parse(name string) (microvm.Port, bool) {
	protocol, rest, _ := strings.Cut(name, "-")
	number, address, _ := strings.Cut(rest, "-")
	port, portErr := strconv.ParseUint(number, 10, 16)
	addr, addrErr := netip.ParseAddr(address)
	host := netip.AddrPortFrom(addr, uint16(port))
	return microvm.Port{Protocol: egress.Protocol(protocol), Host: host}, portErr == nil && addrErr == nil
}
