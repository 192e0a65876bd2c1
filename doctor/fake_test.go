//go:build linux

package doctor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/foreign"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// fake is a host where all is well, and options that fit it. Tests spoil one thing of it.
type fake struct {
	t   *testing.T
	dir string
	host
	firecracker.Options
	versions map[string]api.Version
	view     network.View
	ruleset  foreign.Ruleset
	systems  map[string]unix.FileSystem // by directory; else fine
}

const fakeRelease = "6.1.0-56-cloud-amd64"

var fine = unix.FileSystem{Type: 0xef53, FreeBytes: 100 << 30, Mount: unix.Mount{Device: 1, ID: 1}}

// fakeFiles are what a fake host has, by name below its directory.
var fakeFiles = map[string]string{
	"proc/sys/kernel/pid_max":                 "4194304\n",
	"proc/sys/net/ipv4/conf/all/rp_filter":    "0\n",
	"proc/sys/net/ipv4/conf/eth0/rp_filter":   "1\n",
	"proc/sys/net/ipv4/conf/eth0/forwarding":  "1\n",
	"proc/sys/net/ipv4/conf/mvm-0/forwarding": "1\n",
	"proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
	"proc/cpuinfo":                                "processor\t: 0\nflags\t\t: fpu svm npt\n",
	"proc/net/netfilter/nf_log":                   "",
	"sys/module/kvm_amd/refcnt":                   "0\n",
	"dev/net/tun":                                 "",
	"cgroup/cgroup.controllers":                   "cpuset cpu io memory pids\n",
	"cgroup/cgroup.procs":                         "1\n2\n",
	"cgroup/operator.slice/cgroup.procs":          "",
	"cgroup/operator.slice/vms.slice/other":       "",
	"cgroup/operator.slice/crowded/cgroup.procs":  "77\n",
	"cgroup/operator.slice/crowded/b/other":       "",
	"cgroup/operator.slice/crowded/b/memory.high": "",
	"state/marker":                                "",
	"run/marker":                                  "",
	"kernel/vmlinux":                              string(fakekernel.Vmlinux(fakeRelease)),
	"agent":                                       string(fakekernel.Vmlinux("static")),
	"image.ext4":                                  string(make([]byte, 1024+0x38)) + "\x53\xef" + string(make([]byte, 4096)),
	"rootfs.ext4":                                 "root",
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, dir: t.TempDir(), versions: map[string]api.Version{}, systems: map[string]unix.FileSystem{}}
	for name, content := range fakeFiles {
		f.write(name, content)
	}
	var modules []fakekernel.Module
	for _, name := range []string{"virtio_mmio", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng", "overlay"} {
		modules = append(modules, fakekernel.Module{File: name + ".ko", Release: fakeRelease})
	}
	if _, err := fakekernel.WriteModules(f.path("kernel"), fakeRelease, []string{"ext4"}, modules...); err != nil {
		t.Fatal(err)
	}
	f.host = host{
		root: f.dir, release: returns(fakeRelease), makeVM: works, makeTAP: works, makeUserfault: works, makeRules: works,
		program: func(name string) (string, error) { return "/sbin/" + name, nil },
		cgroups: returns(f.path("cgroup")), birth: func(context.Context, string) error { return nil }, mostFiles: returns(syscall.Rlimit{Cur: 1024, Max: 1 << 20}),
	}
	f.view = network.View{
		Info: network.Info{Link: "mvm-0", Uplink: "eth0", Subnet: netip.MustParsePrefix("10.64.0.0/18")}, Made: true, Table: "microvm-0", Machines: 64,
		LinkIndex: 7, UplinkIndex: 2, Default: "eth0", Machine: netip.MustParseAddr("10.64.0.4"), Back: "mvm-0",
	}
	f.ruleset = foreign.Ruleset{Tables: []string{"ip filter", "ip microvm-0"}, Chains: []foreign.Chain{chainOf("ip", "filter", "FORWARD"), chainOf("ip", "microvm-0", "forward", outward, answers)}}
	f.network = func(network.Options) (network.View, error) { return f.view, nil }
	f.reflink = func(string) (bool, error) { return true, nil }
	f.foreign = func() (foreign.Ruleset, error) { return f.ruleset, nil }
	f.version = func(_ context.Context, path string) (api.Version, error) {
		version, ok := f.versions[path]
		if !ok {
			return version, os.ErrNotExist
		}
		return version, nil
	}
	f.fileSystem = func(dir string) (unix.FileSystem, error) {
		if system, ok := f.systems[dir]; ok {
			return system, nil
		}
		return fine, nil
	}
	f.Options = firecracker.Options{
		Firecracker: "/fc/firecracker", StateDir: f.path("state"), SocketDir: f.path("run"), Kernel: f.path("kernel/vmlinux"), Agent: f.path("agent"), Image: f.path("image.ext4"),
		Slice: "/operator.slice/vms.slice",
	}
	sound := api.Version{Major: 1, Minor: 99}
	f.versions["/fc/firecracker"], f.versions["/fc/jailer"] = sound, sound
	return f
}

// further gives the host a second firecracker of a version.
func (f *fake) further(version api.Version) {
	f.Binaries = []string{"/old/firecracker"}
	f.versions["/old/firecracker"] = version
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fake) write(name, content string) {
	f.t.Helper()
	path := f.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

// on changes the file system of a directory.
func (f *fake) on(name string, change func(*unix.FileSystem)) {
	system := fine
	change(&system)
	f.systems[f.path(name)] = system
}

func (f *fake) run() Report { return run(f.t.Context(), f.host, Options{Driver: f.Options}) }

// chainOf is a base chain that drops some ways, of a firewall that is told by no other chain.
func chainOf(family, table, name string, dropped ...int) foreign.Chain {
	return foreign.Chain{Family: family, Table: table, Name: name, Judge: func(p foreign.Packet) foreign.Judgement {
		way := outward
		if p.In != "mvm-0" {
			way = answers
		}
		if p.DNAT {
			way = published
		}
		return foreign.Judgement{Dropped: slices.Contains(dropped, way), By: "its policy drops it", Through: []string{name}}
	}}
}

// by is chainOf through more chains.
func by(c foreign.Chain, through ...string) foreign.Chain {
	judge := c.Judge
	c.Judge = func(p foreign.Packet) foreign.Judgement {
		j := judge(p)
		j.Through = append(j.Through, through...)
		return j
	}
	return c
}

func works() error { return nil }

var errBroken = errors.New("it is broken")

func fails() error { return errBroken }

func returns[T any](value T) func() (T, error) { return func() (T, error) { return value, nil } }

func broken[T any]() (value T, err error) { return value, errBroken }

func noProgram(string) (string, error) { return "", errBroken }
