//go:build linux

package doctor

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/foreign"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// host is what checks look at and try. Tests give another.
type host struct {
	root string // That /proc and /sys are below.
	uid  int

	release       func() (string, error) // of the kernel
	makeVM        func() error
	makeTAP       func() error
	makeUserfault func() error
	makeRules     func() error // of a machine's network
	version       func(ctx context.Context, binary string) (api.Version, error)
	cgroups       func() (root string, err error)
	birth         func(ctx context.Context, parent string) error // in a cgroup that is made below parent
	fileSystem    func(dir string) (unix.FileSystem, error)
	mostFiles     func() (syscall.Rlimit, error)
	program       func(name string) (path string, err error)
	network       func(network.Options) (network.View, error)
	foreign       func() (foreign.Ruleset, error)
	reflink       func(dir string) (bool, error)
	run           func(ctx context.Context, program string, args ...string) error // as a fix needs it
}

// thisHost is the one that the program runs on.
func thisHost() host {
	return host{
		root: "/", uid: os.Geteuid(),
		release: unix.Release, makeVM: unix.ProbeKVM, makeTAP: unix.ProbeTAP, makeUserfault: unix.ProbeUserfault, makeRules: firewall.Probe,
		version: firecracker.BinaryVersion, cgroups: cgroup.Root, birth: birth, fileSystem: unix.StatFS, program: disk.Find,
		network: network.Look, foreign: foreign.Read, reflink: unix.ProbeReflink, run: runProgram,
		mostFiles: func() (limit syscall.Rlimit, err error) {
			err = os.NewSyscallError("getrlimit", syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
			return limit, err
		},
	}
}

func (h host) path(name string) string { return filepath.Join(h.root, name) }
