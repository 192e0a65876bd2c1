//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/foreign"
	"github.com/tangle-network/microvm-runtime/internal/inventory"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakekernel"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// checkReport says what every finding has: evidence, and a remedy where something is to be done.
func checkReport(t *testing.T, r Report) {
	t.Helper()
	for _, f := range r {
		if f.Check == "" || f.Evidence == "" || (f.Severity == OK) != (f.Remedy == "") || !slices.Contains([]Severity{OK, Warning, Error}, f.Severity) {
			t.Errorf("%+v: lacks something", f)
		}
	}
}

// wellChecks are the checks of a host where all is well.
var wellChecks = []string{
	"linux", "privileges", "kvm", "firecracker", "jailer", "one release", "cgroup v2", "slice", "cgroup birth", "tap", "nf_tables", "userfaultfd", "kernel", "kernel modules", "agent", "image",
	"mke2fs", "resize2fs", "state directory", "socket directory", "jail directory", "one file system", "reflink", "space", "pids", "files",
	"uplink", "subnet", "forwarding", "reverse path", "connection tracking", "masquerade", "other firewalls",
}

func TestAllIsWell(t *testing.T) {
	report := newFake(t).run()
	checkReport(t, report)
	var names []string
	for _, f := range report {
		if strings.HasPrefix(f.Check, "firecracker ") { // what is known of every version so far
			continue
		}
		names = append(names, f.Check)
		if f.Severity != OK {
			t.Errorf("%+v", f)
		}
	}
	if !slices.Equal(names, wellChecks) || !report.Healthy() {
		t.Errorf("%q, healthy: %v", names, report.Healthy())
	}
}

// spoilt is one thing that is wrong with a host, and the finding that tells it.
type spoilt struct {
	name     string
	spoil    func(*fake)
	check    string
	severity Severity
	words    string // of its evidence
}

var spoils = []spoilt{
	{"an old kernel", func(f *fake) { f.release = returns("5.14.21-generic") }, "linux", Error, "5.14.21"},
	{"an older kernel", func(f *fake) { f.release = returns("4.19.0") }, "linux", Error, "4.19"},
	{"the oldest kernel", func(f *fake) { f.release = returns("5.15.0") }, "linux", OK, "5.15"},
	{"a kernel of no number", func(f *fake) { f.release = returns("custom") }, "linux", Error, "custom"},
	{"a kernel that does not say", func(f *fake) { f.release = broken[string] }, "linux", Error, "broken"},
	{"a user", func(f *fake) { f.uid = 1000 }, "privileges", Error, "user 1000"},
	{"a user with bare machines", func(f *fake) { f.uid, f.Bare = 1000, true }, "privileges", Warning, "bare"},
	{"no KVM", func(f *fake) { f.makeVM = fails }, "kvm", Error, "broken"},
	{"PVM", func(f *fake) { f.write("sys/module/kvm_pvm/refcnt", "") }, "kvm", Warning, "pvm"},
	{"a CPU without virtualisation", func(f *fake) { f.write("proc/cpuinfo", "flags\t\t: fpu\n") }, "kvm", Warning, "false"},
	{"Intel's", func(f *fake) {
		f.remove("sys/module/kvm_amd")
		f.write("sys/module/kvm_intel/refcnt", "")
		f.write("proc/cpuinfo", "flags : fpu vmx\n")
	}, "kvm", OK, "intel"},
	{"arm64", func(f *fake) { f.remove("sys/module/kvm_amd"); f.write("proc/cpuinfo", "CPU implementer\t: 0x41\n") }, "kvm", OK, "arm"},
	{"no Firecracker", func(f *fake) { delete(f.versions, "/fc/firecracker") }, "firecracker", Error, "not exist"},
	{"an old Firecracker", func(f *fake) { f.versions["/fc/firecracker"] = api.Version{Major: 1, Minor: 6} }, "firecracker", Error, "1.6.0"},
	{"a Firecracker with problems", func(f *fake) { f.versions["/fc/firecracker"] = api.Version{Major: 1, Minor: 12, Patch: 1} }, "firecracker 1.12.1", Warning, ""},
	{"no jailer", func(f *fake) { delete(f.versions, "/fc/jailer") }, "jailer", Error, "not exist"},
	{"another's jailer", func(f *fake) { f.versions["/fc/jailer"] = api.Version{Major: 1, Minor: 12} }, "one release", Error, "1.12.0"},
	{"a second Firecracker that is gone", func(f *fake) { f.Binaries = []string{"/old/firecracker"} }, "further firecracker", Warning, "not exist"},
	{"a second Firecracker that is too old", func(f *fake) { f.further(api.Version{Major: 1, Minor: 6}) }, "further firecracker", Warning, "1.6.0"},
	{"a second Firecracker with the other's jailer", func(f *fake) { f.further(api.Version{Major: 1, Minor: 98}) }, "further firecracker", Warning, "/fc/jailer is 1.99.0"},
	{"a second Firecracker with no jailer", func(f *fake) { f.further(api.Version{Major: 1, Minor: 98}); f.Jailer = "/none" }, "further firecracker", Warning, "not exist"},
	{"a second Firecracker of the same release", func(f *fake) { f.further(api.Version{Major: 1, Minor: 99}) }, "further firecracker", OK, "/old/firecracker is version 1.99.0"},
	{"a second Firecracker for bare machines", func(f *fake) { f.further(api.Version{Major: 1, Minor: 98}); f.Bare = true }, "further firecracker", OK, "1.98.0"},
	{"a second Firecracker with problems", func(f *fake) { f.further(api.Version{Major: 1, Minor: 12, Patch: 1}); f.Bare = true }, "firecracker 1.12.1", Warning, ""},
	{"no cgroup v2", func(f *fake) { f.cgroups = broken[string] }, "cgroup v2", Warning, "broken"},
	{"no controllers", func(f *fake) { f.write("cgroup/cgroup.controllers", "hugetlb\n") }, "cgroup v2", Warning, "hugetlb"},
	{"a controller that is called nearly so", func(f *fake) { f.write("cgroup/cgroup.controllers", "cpuset io memory pids\n") }, "cgroup v2", Warning, "cpuset"},
	{"no file of controllers", func(f *fake) { f.remove("cgroup/cgroup.controllers") }, "cgroup v2", Warning, "no such file"},
	{"a slice with processes", func(f *fake) { f.Slice = "/operator.slice/crowded" }, "slice", Warning, "operator.slice/crowded"},
	{"a slice below one with processes", func(f *fake) { f.Slice = "/operator.slice/crowded/b" }, "slice", Warning, "operator.slice/crowded"},
	{"a slice that is missing", func(f *fake) { f.Slice = "/missing.slice" }, "slice", OK, "missing.slice"},
	{"no right to make cgroups", func(f *fake) { f.birth = func(context.Context, string) error { return errBroken } }, "cgroup birth", Error, "broken"},
	{"children that are killed at birth", func(f *fake) { f.birth = func(context.Context, string) error { return errStillborn } }, "cgroup birth", Warning, "killed"},
	{"no TAP", func(f *fake) { f.makeTAP = fails }, "tap", Warning, "broken"},
	{"no TAP for a user", func(f *fake) { f.uid, f.makeTAP = 1000, fails; f.remove("dev/net") }, "tap", Warning, "no such file"},
	{"a user's TAP", func(f *fake) { f.uid, f.makeTAP = 1000, fails }, "tap", OK, "only root"},
	{"no nf_tables", func(f *fake) { f.makeRules = fails }, "nf_tables", Warning, "broken"},
	{"a kernel that can't count flows", func(f *fake) {
		f.makeRules = func() error {
			return errors.Join(&firewall.LacksError{Option: "CONFIG_NFT_CONNLIMIT", For: "the cap on flows", Err: errBroken}, &firewall.LacksError{Option: "CONFIG_NFT_LOG", Err: errBroken})
		}
	}, "nf_tables", Warning, "CONFIG_NFT_CONNLIMIT, for the cap on flows: it is broken; the kernel has no CONFIG_NFT_LOG"},
	{"no nf_tables for a user", func(f *fake) { f.uid, f.makeRules = 1000, fails; f.remove("proc/net") }, "nf_tables", Warning, "no such file"},
	{"a user's nf_tables", func(f *fake) { f.uid, f.makeRules = 1000, fails }, "nf_tables", OK, "only root"},
	{"no userfaultfd", func(f *fake) { f.makeUserfault = fails }, "userfaultfd", Warning, "broken"},
	{"no kernel", func(f *fake) { f.remove("kernel/vmlinux") }, "kernel", Error, "no such file"},
	{"no kernel, and no image", func(f *fake) { f.remove("kernel/vmlinux"); f.Image = "" }, "kernel", Warning, "no such file"},
	{"an empty kernel", func(f *fake) { f.write("kernel/vmlinux", "") }, "kernel", Error, "vmlinux"},
	{"a bzImage", func(f *fake) { f.write("kernel/vmlinux", string(fakekernel.BzImage(fakeRelease, []byte("packed")))) }, "kernel", Error, "bzImage"},
	{"modules of another kernel", func(f *fake) { f.write("kernel/vmlinux", string(fakekernel.Vmlinux("6.12"))) }, "kernel modules", Error, "6.12"},
	{"modules that are missing", func(f *fake) { f.remove("kernel/lib/modules/" + fakeRelease + "/kernel/overlay.ko") }, "kernel modules", Error, "overlay"},
	{"a kernel that is no Linux", func(f *fake) { f.write("kernel/vmlinux", string(tinyguest.Kernel(tinyguest.Program{}))); f.Image = "" }, "kernel modules", Warning, "release"},
	{"no agent", func(f *fake) { f.remove("agent") }, "agent", Error, "no guest agent"},
	{"no agent, and no image", func(f *fake) { f.remove("agent"); f.Image = "" }, "agent", Warning, "no guest agent"},
	{"an agent that is a script", func(f *fake) { f.write("agent", "#!/bin/sh\n") }, "agent", Error, "agent"},
	{"an agent with libraries", func(f *fake) { f.Agent = "/bin/ls" }, "agent", Error, "not static"},
	{"no image", func(f *fake) { f.remove("image.ext4") }, "image", Error, "no such file"},
	{"an image that is a directory", func(f *fake) { f.Image = f.dir }, "image", Error, "no regular file"},
	{"an image that is no ext4", func(f *fake) { f.write("image.ext4", strings.Repeat("x", 4096)) }, "image", Error, "no ext4"},
	{"an image that is short", func(f *fake) { f.write("image.ext4", "x") }, "image", Error, "no ext4"},
	{"no root file system", func(f *fake) { f.Image, f.Rootfs = "", f.path("none") }, "rootfs", Warning, "no such file"},
	{"a root file system", func(f *fake) { f.Image, f.Rootfs = "", f.path("rootfs.ext4") }, "rootfs", OK, "rootfs.ext4"},
	{"no mke2fs", func(f *fake) { f.program = noProgram }, "mke2fs", Error, "broken"},
	{"no mke2fs, and no image", func(f *fake) { f.program, f.Image = noProgram, "" }, "mke2fs", Warning, "broken"},
	{"no resize2fs", func(f *fake) { f.program = noProgram }, "resize2fs", Warning, "broken"},
	{"state in memory", func(f *fake) { f.on("state", func(s *unix.FileSystem) { s.Type = unix.TmpfsMagic }) }, "state directory", Warning, "in memory"},
	{"state that is read-only", func(f *fake) { f.on("state", func(s *unix.FileSystem) { s.ReadOnly = true }) }, "state directory", Error, "read-only"},
	{"state that is a file", func(f *fake) { f.StateDir = f.path("rootfs.ext4") }, "state directory", Error, "no directory"},
	{"state that is to be made", func(f *fake) { f.StateDir = f.path("some/where") }, "state directory", OK, "some/where"},
	{"state that can't be looked at", func(f *fake) {
		f.fileSystem = func(string) (unix.FileSystem, error) { return broken[unix.FileSystem]() }
	}, "state directory", Error, "broken"},
	{"sockets that are read-only", func(f *fake) { f.on("run", func(s *unix.FileSystem) { s.ReadOnly = true }) }, "socket directory", Error, "read-only"},
	{"sockets in memory", func(f *fake) { f.on("run", func(s *unix.FileSystem) { s.Type = unix.TmpfsMagic }) }, "socket directory", OK, "run"},
	{"jails without devices", func(f *fake) { f.on("state", func(s *unix.FileSystem) { s.NoDev = true }) }, "jail directory", Error, "nodev"},
	{"jails without programs", func(f *fake) { f.on("state", func(s *unix.FileSystem) { s.NoExec = true }) }, "jail directory", Error, "noexec"},
	{"jails on another device", func(f *fake) {
		f.JailDir = f.path("run/jails")
		f.on("run", func(s *unix.FileSystem) { s.Mount.Device++ })
	}, "one file system", Error, "run/jails"},
	{"jails on another mount", func(f *fake) { f.JailDir = f.path("run/jails"); f.on("run", func(s *unix.FileSystem) { s.Mount.ID++ }) }, "one file system", Error, "run/jails"},
	{"jails elsewhere on the same", func(f *fake) { f.JailDir = f.path("run/jails") }, "one file system", OK, "run/jails"},
	{"files that can't share blocks", func(f *fake) { f.reflink = func(string) (bool, error) { return false, nil } }, "reflink", Warning, "of 0 MiB"},
	{"files that can't share blocks, and machines", func(f *fake) {
		f.reflink = func(string) (bool, error) { return false, nil }
		f.write("state/machines/a/layer", strings.Repeat("x", 3<<20))
		f.write("state/machines/b/layer", "x")
	}, "reflink", Warning, "of 3 MiB"},
	{"a directory that can't be tried", func(f *fake) { f.reflink = func(string) (bool, error) { return broken[bool]() } }, "reflink", Warning, "broken"},
	{"a user's directory", func(f *fake) { f.uid = 1000; f.reflink = func(string) (bool, error) { return broken[bool]() } }, "reflink", OK, "only root"},
	{"little space", func(f *fake) { f.on("state", func(s *unix.FileSystem) { s.FreeBytes = 1<<30 - 1 }) }, "space", Warning, "1023 MiB"},
	{"space that can't be told", func(f *fake) {
		f.fileSystem = func(string) (unix.FileSystem, error) { return broken[unix.FileSystem]() }
	}, "space", Error, "broken"},
	{"few pids", func(f *fake) { f.write("proc/sys/kernel/pid_max", "32767\n") }, "pids", Warning, "32767"},
	{"pids that are none", func(f *fake) { f.write("proc/sys/kernel/pid_max", "many\n") }, "pids", Warning, "many"},
	{"pids that can't be told", func(f *fake) { f.remove("proc/sys") }, "pids", Warning, "no such file"},
	{"few descriptors", func(f *fake) { f.mostFiles = returns(syscall.Rlimit{Cur: 1024, Max: 4095}) }, "files", Warning, "4095"},
	{"descriptors that can't be told", func(f *fake) { f.mostFiles = broken[syscall.Rlimit] }, "files", Warning, "broken"},
	{"links that can't be told", func(f *fake) {
		f.network = func(network.Options) (network.View, error) { return broken[network.View]() }
	}, "uplink", Warning, "broken"},
	{"no uplink", func(f *fake) { f.view.Uplink, f.view.UplinkIndex = "", 0 }, "uplink", Warning, "no link leads out"},
	{"an uplink that is gone", func(f *fake) { f.view.UplinkIndex = 0 }, "uplink", Warning, "no link leads out"},
	{"a link that is gone", func(f *fake) { f.view.LinkIndex = 0 }, "uplink", Warning, "mvm-0 is gone"},
	{"a link that is not made yet", func(f *fake) { f.view.LinkIndex, f.view.Made = 0, false }, "uplink", OK, "eth0"},
	{"a subnet that overlaps", func(f *fake) { f.view.Conflict, f.view.Made = errBroken, false }, "subnet", Error, "broken"},
	{"a subnet that overlaps by now", func(f *fake) { f.view.Conflict = errBroken }, "subnet", Warning, "broken"},
	{"a subnet that is routed elsewhere", func(f *fake) { f.view.Back = "tun0" }, "subnet", Warning, "tun0"},
	{"a subnet that is to be chosen", func(f *fake) { f.view.Made, f.view.Subnet = false, netip.Prefix{} }, "subnet", OK, "chosen"},
	{"machines' link does not forward", func(f *fake) { f.write("proc/sys/net/ipv4/conf/mvm-0/forwarding", "0\n") }, "forwarding", Warning, "conf.mvm-0.forwarding is 0:"},
	{"the uplink does not forward", func(f *fake) { f.write("proc/sys/net/ipv4/conf/eth0/forwarding", "0\n") }, "forwarding", Warning, "conf.eth0.forwarding is 0:"},
	{"nothing forwards yet", func(f *fake) {
		f.view.Made = false
		f.write("proc/sys/net/ipv4/conf/eth0/forwarding", "0\n")
	}, "forwarding", OK, "first machine"},
	{"strict at another link", func(f *fake) { f.view.Default = "eth1" }, "reverse path", Warning, "eth1"},
	{"strict at all links", func(f *fake) {
		f.view.Default = "eth1"
		f.write("proc/sys/net/ipv4/conf/all/rp_filter", "1\n")
		f.remove("proc/sys/net/ipv4/conf/eth0/rp_filter")
	}, "reverse path", Warning, "eth1"},
	{"loose at another link", func(f *fake) { f.view.Default = "eth1"; f.write("proc/sys/net/ipv4/conf/all/rp_filter", "2\n") }, "reverse path", OK, "2"},
	{"too few entries for flows", func(f *fake) { f.view.Machines = 65 }, "connection tracking", Warning, "64 machines"},
	{"no entries for flows", func(f *fake) { f.remove("proc/sys/net/netfilter"); f.view.Machines = 65 }, "connection tracking", OK, "not loaded"},
	{"rules that were flushed", func(f *fake) { f.ruleset = foreign.Ruleset{} }, "masquerade", Warning, "microvm-0 is gone"},
	{"rules that are not made yet", func(f *fake) { f.ruleset, f.view.Made = foreign.Ruleset{}, false }, "masquerade", OK, "first machine"},
	{"rules that can't be read", func(f *fake) {
		f.foreign = func() (foreign.Ruleset, error) { return broken[foreign.Ruleset]() }
	}, "other firewalls", Warning, "broken"},
	{"a user's rules", func(f *fake) {
		f.uid = 1000
		f.foreign = func() (foreign.Ruleset, error) { return broken[foreign.Ruleset]() }
	}, "other firewalls", OK, "only root"},
	{"a firewall that drops", func(f *fake) {
		f.ruleset.Chains = append(f.ruleset.Chains, chainOf("inet", "filter", "forward", answers))
	}, "other firewalls", Warning, "nftables: chain forward of table inet filter drops answers to machines (its policy drops it)"},
	{"rules of iptables-legacy that can't be read", func(f *fake) { f.ruleset.Legacy = errBroken }, "other firewalls", Warning, "broken"},
}

func TestWhatIsWrongIsFound(t *testing.T) {
	for _, s := range spoils {
		t.Run(s.name, func(t *testing.T) {
			f := newFake(t)
			s.spoil(f)
			report := f.run()
			checkReport(t, report)
			i := slices.IndexFunc(report, func(f Finding) bool { return f.Check == s.check })
			if i < 0 {
				t.Fatalf("%q is not in %+v", s.check, report)
			}
			if got := report[i]; got.Severity != s.severity || !strings.Contains(got.Evidence, s.words) {
				t.Errorf("%+v, want %s with %q", got, s.severity, s.words)
			}
			if s.severity == Error && report.Healthy() {
				t.Error("a report with an error is healthy")
			}
		})
	}
}

// TestEveryCheckCanFail: what can't be anything but well is no check.
func TestEveryCheckCanFail(t *testing.T) {
	for _, check := range wellChecks {
		if !slices.ContainsFunc(spoils, func(s spoilt) bool { return s.check == check && s.severity != OK }) {
			t.Errorf("nothing spoils %q", check)
		}
	}
}

// TestBareNeedsNoJails leaves out what only jails need.
func TestBareNeedsNoJails(t *testing.T) {
	f := newFake(t)
	f.Bare = true
	for _, finding := range f.run() {
		if slices.Contains([]string{"jailer", "one release", "jail directory", "one file system", "uplink", "other firewalls"}, finding.Check) {
			t.Errorf("%+v for bare machines", finding)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.makeVM = func() error { cancel(); return nil }
	report := run(ctx, f.host, Options{Driver: f.Options})
	if len(report) == 0 || report[len(report)-1].Check != "kvm" {
		t.Errorf("%+v, want the checks up to that of KVM", report)
	}
}

// cgroupsOf is what doctor could change of the hierarchy: its directories, and what their children have.
func cgroupsOf(t *testing.T) string {
	t.Helper()
	root, err := cgroup.Root()
	if err != nil {
		return err.Error()
	}
	census, err := inventory.Take(inventory.Options{Slice: "/"})
	if err != nil {
		t.Fatal(err)
	}
	on, err := os.ReadFile(root + "/cgroup.subtree_control")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, item := range census {
		if item.Kind == "cgroup" && strings.Contains(item.Name, "doctor") {
			fmt.Fprintln(&b, item.Name)
		}
	}
	return b.String() + string(on)
}

// TestHostRunChangesNothing makes the real checks on this host, as root.
func TestHostRunChangesNothing(t *testing.T) {
	ring.Host(t)
	f := newFake(t) // for directories of the test's own
	f.Options.Slice = leak.Slice("doctor")
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	before := cgroupsOf(t)
	report := Run(t.Context(), Options{Driver: f.Options})
	checkReport(t, report)
	if after := cgroupsOf(t); after != before {
		t.Errorf("cgroups were %q and are %q", before, after)
	}
	if now, err := os.ReadDir("/sys/class/net"); err != nil || len(now) != len(links) {
		t.Errorf("links were %v and are %v, %v", links, now, err)
	}
	if entries, err := os.ReadDir(f.StateDir); err != nil || len(entries) != 1 {
		t.Errorf("the state directory has %v, %v", entries, err)
	}
	for _, check := range []string{"linux", "privileges", "tap", "nf_tables", "userfaultfd", "kernel modules", "agent", "image", "mke2fs", "state directory", "one file system"} {
		i := slices.IndexFunc(report, func(f Finding) bool { return f.Check == check })
		if i < 0 || report[i].Severity != OK {
			t.Errorf("%s is not well in %+v", check, report)
		}
	}
}

// TestHostBirth tells a process that was born from one that could not be.
func TestHostBirth(t *testing.T) {
	ring.Host(t)
	root, err := cgroup.Root()
	if err != nil {
		t.Logf("no hierarchy here: %v", err)
		return
	}
	if err := birth(t.Context(), root); err != nil && !errors.Is(err, errStillborn) { // some kernels, once this test's own cgroup was killed
		t.Error(err)
	}
	if err := birth(t.Context(), root+"/none"); err == nil {
		t.Error("a process was born in no cgroup")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := birth(ended, root); err == nil {
		t.Error("a process was born after the context's end")
	}
}
