//go:build linux

package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// minFree is how much the state's file system should have, in bytes.
const minFree = 1 << 30

func checkDirectories(_ context.Context, h host, o firecracker.Options) []Finding {
	findings := []Finding{
		checkDirectory(h, "state directory", "MICROVM_STATE_DIR", o.StateDir, func(s unix.FileSystem) (string, string) {
			if s.Type == unix.TmpfsMagic {
				return "is in memory", "put it on a disk, or a reboot takes every machine's disk with it"
			}
			return "", ""
		}),
		checkDirectory(h, "socket directory", "MICROVM_SOCKET_DIR", o.SocketDir, nil),
	}
	if o.Bare {
		return findings
	}
	jails := checkDirectory(h, "jail directory", "MICROVM_JAILER_CHROOT_BASE", o.JailDir, nil)
	if system, err := h.fileSystem(nearest(o.JailDir)); err == nil && (system.NoDev || system.NoExec) {
		jails = fail("jail directory", nearest(o.JailDir)+" is mounted nodev or noexec", "mount it without, or set MICROVM_JAILER_CHROOT_BASE: jails have device nodes and a program")
	}
	return append(findings, jails, checkLinks(h, o))
}

// checkDirectory looks at where a directory is, or will be. Odd says what is odd with its file system, and what to do.
func checkDirectory(h host, check, variable, dir string, odd func(unix.FileSystem) (what, remedy string)) Finding {
	there := nearest(dir)
	info, err := os.Stat(there)
	if err == nil && !info.IsDir() {
		return fail(check, there+" is no directory", "remove it, or set "+variable)
	}
	system, err := h.fileSystem(there)
	switch {
	case err != nil:
		return fail(check, err.Error(), "let this user look at it, or set "+variable)
	case system.ReadOnly:
		return fail(check, there+" is mounted read-only", "mount it writable, or set "+variable)
	}
	if odd != nil {
		if what, remedy := odd(system); what != "" {
			return warn(check, there+" "+what, remedy)
		}
	}
	return ok(check, fmt.Sprintf("%s, file system %#x", dir, system.Type))
}

// checkLinks says whether files of the state directory can be linked into jails.
func checkLinks(h host, o firecracker.Options) Finding {
	const check = "one file system"
	state, err := h.fileSystem(nearest(o.StateDir))
	if err != nil {
		return fail(check, err.Error(), "let this user look at it, or set MICROVM_STATE_DIR")
	}
	jails, err := h.fileSystem(nearest(o.JailDir))
	if err != nil {
		return fail(check, err.Error(), "let this user look at it, or set MICROVM_JAILER_CHROOT_BASE")
	}
	if state.Mount != jails.Mount {
		return fail(check, o.StateDir+" and "+o.JailDir+" are on different mounts", "put both on one, so that files can be linked: MICROVM_STATE_DIR, MICROVM_JAILER_CHROOT_BASE")
	}
	return ok(check, o.StateDir+" and "+o.JailDir+" are on one mount")
}

// nearest returns the path, or the nearest above it that is there.
func nearest(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}

func checkSpace(_ context.Context, h host, o firecracker.Options) []Finding {
	const check, remedy = "space", "make room, or set MICROVM_STATE_DIR: layers grow with what guests write"
	system, err := h.fileSystem(nearest(o.StateDir))
	if err != nil {
		return []Finding{fail(check, err.Error(), remedy)}
	}
	evidence := fmt.Sprintf("%d MiB are free at %s", system.FreeBytes>>20, nearest(o.StateDir))
	if system.FreeBytes < minFree {
		return []Finding{warn(check, evidence, remedy)}
	}
	return []Finding{ok(check, evidence)}
}
