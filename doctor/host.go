//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/unix"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	minMajor, minMinor = 5, 15
	minFree            = 1 << 30
	minPIDs            = 32768
	minFiles           = 4096
)

func checkKernel(firecracker.Options) []Finding {
	release, err := unix.Release()
	if err != nil {
		return []Finding{fail("kernel", err.Error(), "")}
	}
	var major, minor int
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	if major < minMajor || major == minMajor && minor < minMinor {
		return []Finding{fail("kernel", "Linux "+release, fmt.Sprintf("use Linux %d.%d or later", minMajor, minMinor))}
	}
	return []Finding{ok("kernel", "Linux "+release)}
}

func checkPrivileges(o firecracker.Options) []Finding {
	uid := os.Geteuid()
	switch {
	case uid == 0:
		return []Finding{ok("privileges", "root")}
	case o.Bare:
		return []Finding{warn("privileges", fmt.Sprintf("user %d, machines are bare", uid), "run as root, with jails, for other people's code")}
	}
	return []Finding{fail("privileges", fmt.Sprintf("user %d", uid), "run as root: the jailer needs it")}
}

func checkBinaries(o firecracker.Options) []Finding {
	var findings []Finding
	for _, binary := range []struct{ check, path string }{{"firecracker", o.Firecracker}, {"jailer", o.Jailer}} {
		if binary.check == "jailer" && o.Bare {
			continue
		}
		version, err := firecracker.BinaryVersion(context.Background(), binary.path)
		if err != nil {
			findings = append(findings, fail(binary.check, err.Error(), "install a Firecracker release, 1.7 or later (microvm setup), or set MICROVM_FIRECRACKER_BIN and MICROVM_JAILER_BIN"))
			continue
		}
		evidence := fmt.Sprintf("%s is version %s", binary.path, version)
		if version.Compare(firecracker.MinVersion()) < 0 {
			findings = append(findings, fail(binary.check, evidence, "install "+firecracker.MinVersion().String()+" or later"))
			continue
		}
		findings = append(findings, ok(binary.check, evidence))
		if binary.check == "firecracker" {
			findings = append(findings, knownOf(version)...)
		}
	}
	return findings
}

// knownOf tells of what is known to be wrong with a version.
func knownOf(version api.Version) []Finding {
	var findings []Finding
	for _, problem := range version.Known() {
		findings = append(findings, warn("firecracker "+version.String(), problem.What, problem.Remedy))
	}
	return findings
}

func checkCgroups(o firecracker.Options) []Finding {
	root, err := cgroup.Root()
	if err != nil {
		return []Finding{warn("cgroup v2", err.Error(), "mount cgroup v2: without it limits, and the killing of all that a VMM started, are not there")}
	}
	text, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	findings := []Finding{ok("cgroup v2", fmt.Sprintf("%s, controllers: %s", root, strings.TrimSpace(string(text))))}
	for _, controller := range []string{"cpu", "memory", "pids", "io"} {
		if !strings.Contains(" "+string(text)+" ", " "+controller) && !strings.HasPrefix(string(text), controller) {
			findings[0] = warn("cgroup v2", findings[0].Evidence, "boot with systemd.unified_cgroup_hierarchy=1 to have cpu, memory, pids and io there")
			break
		}
	}
	if os.Geteuid() != 0 {
		return findings
	}
	return append(findings, tryCgroup(o.Slice))
}

// tryCgroup starts a trivial program in a leaf: on some hosts it would be killed at birth.
func tryCgroup(path string) Finding {
	const check = "cgroup birth"
	slice, err := cgroup.Open(path)
	if err != nil {
		return fail(check, err.Error(), "let this user make cgroups, or set another slice")
	}
	leaf, err := slice.NewLeaf("doctor-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		return fail(check, err.Error(), "let this user make cgroups below "+path)
	}
	defer leaf.Remove()
	p, err := vmm.Start(vmm.Command{Path: "/bin/true", Cgroup: leaf})
	if err != nil {
		return fail(check, err.Error(), "")
	}
	defer p.Close()
	<-p.Done()
	return ok(check, "a program was born in a leaf of "+path)
}

func checkDevices(firecracker.Options) []Finding {
	var findings []Finding
	for _, device := range []struct{ check, path, remedy string }{
		{"tun", "/dev/net/tun", "modprobe tun"},
		{"userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd", "use a kernel with CONFIG_USERFAULTFD for snapshots whose memory is no local file"},
	} {
		if _, err := os.Stat(device.path); err != nil {
			findings = append(findings, warn(device.check, err.Error(), device.remedy))
			continue
		}
		findings = append(findings, ok(device.check, device.path+" is there"))
	}
	return append(findings, checkNftables())
}

func checkNftables() Finding {
	const check = "nf_tables"
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_NETFILTER)
	if err != nil {
		return warn(check, err.Error(), "modprobe nf_tables")
	}
	syscall.Close(fd)
	if _, err := os.Stat("/proc/net/netfilter"); err != nil {
		return warn(check, err.Error(), "modprobe nf_tables")
	}
	return ok(check, "netlink answers")
}

func checkDirectories(o firecracker.Options) []Finding {
	var findings []Finding
	for _, dir := range []struct{ check, path string }{{"state directory", o.StateDir}, {"jail directory", o.JailDir}, {"socket directory", o.SocketDir}} {
		there := nearest(dir.path)
		system, err := unix.StatFS(there)
		switch {
		case err != nil:
			findings = append(findings, fail(dir.check, err.Error(), "make it"))
		case dir.path == o.JailDir && !o.Bare && (system.NoDev || system.NoExec):
			findings = append(findings, fail(dir.check, there+" is mounted nodev or noexec", "jails have devices and a program: mount it without, or set MICROVM_JAILER_CHROOT_BASE"))
		default:
			findings = append(findings, ok(dir.check, fmt.Sprintf("%s, file system %#x", dir.path, system.Type)))
		}
	}
	state, err1 := unix.StatFS(nearest(o.StateDir))
	jails, err2 := unix.StatFS(nearest(o.JailDir))
	if errors.Join(err1, err2) == nil && state.FileDevices != jails.FileDevices && !o.Bare {
		findings = append(findings, fail("one file system", o.StateDir+" and "+o.JailDir+" are on different ones", "put both on one, so that files can be linked"))
	}
	return findings
}

// nearest returns the directory, or the nearest above it that is there.
func nearest(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}

func checkSpace(o firecracker.Options) []Finding {
	system, err := unix.StatFS(nearest(o.StateDir))
	if err != nil {
		return []Finding{fail("space", err.Error(), "")}
	}
	evidence := fmt.Sprintf("%d MiB are free at %s", system.FreeBytes>>20, nearest(o.StateDir))
	if system.FreeBytes < minFree {
		return []Finding{warn("space", evidence, "make room: layers grow with what guests write")}
	}
	return []Finding{ok("space", evidence)}
}

func checkLimits(firecracker.Options) []Finding {
	var findings []Finding
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	most, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || most < minPIDs {
		findings = append(findings, warn("pids", fmt.Sprintf("kernel.pid_max is %d", most), "sysctl kernel.pid_max=4194304: a machine takes four to five"))
	} else {
		findings = append(findings, ok("pids", fmt.Sprintf("kernel.pid_max is %d", most)))
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		evidence := fmt.Sprintf("RLIMIT_NOFILE is %d, at most %d", files.Cur, files.Max)
		if files.Max < minFiles {
			findings = append(findings, warn("files", evidence, "raise it: this process holds up to six descriptors for a machine that it watches"))
		} else {
			findings = append(findings, ok("files", evidence))
		}
	}
	return findings
}
