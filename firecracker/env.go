//go:build linux

package firecracker

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

// The ranges of the numbers; those of Spec are microvm.Spec's.
const (
	maxVCPUs     = 32
	minMTU       = 576 // what every IPv4 host must take (RFC 791)
	maxMTU       = 65535
	maxLink      = 15 // IFNAMSIZ, less its end
	maxMemoryMiB = 1 << 20
	minLayerMiB  = 16
	maxLayerMiB  = 1 << 24
	maxUID       = 1<<31 - 2
	maxWaiting   = 1000

	maxNameservers = 3 // as libc
)

// FromEnv returns a Runtime with the options of the environment; see [OptionsFromEnv].
func FromEnv() (*microvm.Runtime, error) {
	options, err := OptionsFromEnv(os.LookupEnv)
	if err != nil {
		return nil, err
	}
	return New(options)
}

// OptionsFromEnv reads options from environment variables. A bad value is an error that matches microvm.ErrInvalid and names the variable; an empty
// one is as if it were not set.
//
//	MICROVM_FIRECRACKER_BIN         Firecracker
//	MICROVM_JAILER_BIN              Jailer
//	MICROVM_FIRECRACKER_BINARIES    Binaries: paths with colons between them, as in PATH
//	MICROVM_FIRECRACKER_STATE_DIR   StateDir     (or MICROVM_STATE_DIR)
//	MICROVM_FIRECRACKER_SOCKET_DIR  SocketDir    (or MICROVM_SOCKET_DIR)
//	MICROVM_JAILER_CHROOT_BASE      JailDir
//	MICROVM_FIRECRACKER_KERNEL      Kernel       (or MICROVM_KERNEL)
//	MICROVM_KERNEL_MODULES          Modules
//	MICROVM_IMAGE                   Image
//	MICROVM_FIRECRACKER_ROOTFS      Rootfs       (or MICROVM_ROOTFS)
//	MICROVM_ROOTFS_TEMPLATE_DIR     TemplateDir
//	MICROVM_AGENT_BIN               Agent
//	MICROVM_HELPER_BIN              HelperPath
//	MICROVM_FIRECRACKER_VCPU        VCPUs        (or MICROVM_FIRECRACKER_VCPU_COUNT, MICROVM_VCPU)
//	MICROVM_FIRECRACKER_MEM_MIB     MemoryMiB    (or MICROVM_MEM_MIB)
//	MICROVM_LAYER_MIB               LayerMiB
//	MICROVM_MEM_BACKEND             MemoryBackend: file or uffd
//	MICROVM_WAITING_VMMS            WaitingVMMs
//	MICROVM_PAGER_LOSS              PagerLoss: restart or end
//	MICROVM_COMPOSE_JAILER          not Bare: 1, true, yes, on, 0, false, no or off
//	MICROVM_JAILER_UID, _UID_COUNT  FirstUID, UIDCount
//	MICROVM_JAILER_CGROUP_PARENT    Slice, with or without the leading slash
//	MICROVM_COMPOSE_NETWORK         not NoNetwork
//	MICROVM_NETWORK_SUBNET          Subnet
//	MICROVM_NETWORK_EGRESS          Uplink
//	MICROVM_NETWORK_MTU             MTU
//	MICROVM_NAMESERVERS             Nameservers: ADDRESS[:PORT], several with commas between them
func OptionsFromEnv(lookup func(string) (string, bool)) (Options, error) {
	e := environment{lookup: lookup}
	o := Options{
		Firecracker:   e.path("MICROVM_FIRECRACKER_BIN"),
		Jailer:        e.path("MICROVM_JAILER_BIN"),
		Binaries:      e.paths("MICROVM_FIRECRACKER_BINARIES"),
		StateDir:      e.path("MICROVM_FIRECRACKER_STATE_DIR", "MICROVM_STATE_DIR"),
		SocketDir:     e.path("MICROVM_FIRECRACKER_SOCKET_DIR", "MICROVM_SOCKET_DIR"),
		JailDir:       e.path("MICROVM_JAILER_CHROOT_BASE"),
		Kernel:        e.path("MICROVM_FIRECRACKER_KERNEL", "MICROVM_KERNEL"),
		Modules:       e.path("MICROVM_KERNEL_MODULES"),
		Image:         e.path("MICROVM_IMAGE"),
		Rootfs:        e.path("MICROVM_FIRECRACKER_ROOTFS", "MICROVM_ROOTFS"),
		TemplateDir:   e.path("MICROVM_ROOTFS_TEMPLATE_DIR"),
		Agent:         e.path("MICROVM_AGENT_BIN"),
		HelperPath:    e.path("MICROVM_HELPER_BIN"),
		VCPUs:         e.number(1, maxVCPUs, "MICROVM_FIRECRACKER_VCPU", "MICROVM_FIRECRACKER_VCPU_COUNT", "MICROVM_VCPU"),
		MemoryMiB:     e.number(1, maxMemoryMiB, "MICROVM_FIRECRACKER_MEM_MIB", "MICROVM_MEM_MIB"),
		LayerMiB:      e.number(minLayerMiB, maxLayerMiB, "MICROVM_LAYER_MIB"),
		MemoryBackend: e.backend("MICROVM_MEM_BACKEND"),
		WaitingVMMs:   e.number(1, maxWaiting, "MICROVM_WAITING_VMMS"),
		PagerLoss:     e.pagerLoss("MICROVM_PAGER_LOSS"),
		Bare:          !e.truth(true, "MICROVM_COMPOSE_JAILER"),
		FirstUID:      e.number(1, maxUID, "MICROVM_JAILER_UID"),
		UIDCount:      e.number(1, maxUID, "MICROVM_JAILER_UID_COUNT"),
		Slice:         e.slice("MICROVM_JAILER_CGROUP_PARENT"),
		NoNetwork:     !e.truth(true, "MICROVM_COMPOSE_NETWORK"),
		Subnet:        e.subnet("MICROVM_NETWORK_SUBNET"),
		Uplink:        e.link("MICROVM_NETWORK_EGRESS"),
		MTU:           e.number(minMTU, maxMTU, "MICROVM_NETWORK_MTU"),
		Nameservers:   e.servers("MICROVM_NAMESERVERS"),
	}
	return o, e.err
}

// environment reads variables, of which each may have several spellings, and keeps the first error.
type environment struct {
	lookup func(string) (string, bool)
	err    error
}

func (e *environment) first(names []string) (name, value string) {
	for _, name := range names {
		if value, ok := e.lookup(name); ok && value != "" {
			return name, value
		}
	}
	return "", ""
}

// path returns a clean absolute path.
func (e *environment) path(names ...string) string {
	name, value := e.first(names)
	if name != "" && (!filepath.IsAbs(value) || filepath.Clean(value) != value) {
		e.bad(name, value, "must be a clean absolute path")
	}
	return value
}

// paths returns clean absolute paths that have colons between them.
func (e *environment) paths(names ...string) (paths []string) {
	name, value := e.first(names)
	if name == "" {
		return nil
	}
	paths = strings.Split(value, ":")
	for _, path := range paths {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			e.bad(name, value, "must be clean absolute paths with colons between them")
			return nil
		}
	}
	return paths
}

// slice returns a path below the cgroup hierarchy's root, which the crate's users write without its leading slash.
func (e *environment) slice(names ...string) string {
	name, value := e.first(names)
	if name == "" {
		return ""
	}
	path := "/" + strings.TrimPrefix(value, "/")
	if path == "/" || filepath.Clean(path) != path {
		e.bad(name, value, "must be the path of a cgroup")
	}
	return path
}

// subnet returns an IPv4 network; bits beyond its prefix, as the crate's users may write them, are cleared.
func (e *environment) subnet(names ...string) netip.Prefix {
	name, value := e.first(names)
	if name == "" {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(value)
	if err != nil || !prefix.Addr().Is4() {
		e.bad(name, value, "must be an IPv4 network such as 10.64.0.0/18")
		return netip.Prefix{}
	}
	return prefix.Masked()
}

// link returns the name of a network interface.
func (e *environment) link(names ...string) string {
	name, value := e.first(names)
	if len(value) > maxLink || strings.ContainsAny(value, "/ \t\n:") {
		e.bad(name, value, "must be the name of a network interface")
	}
	return value
}

// servers returns addresses with ports, which may be left out.
func (e *environment) servers(names ...string) (servers []netip.AddrPort) {
	name, value := e.first(names)
	if name == "" {
		return nil
	}
	for text := range strings.SplitSeq(value, ",") {
		text = strings.TrimSpace(text)
		server, err := netip.ParseAddrPort(text)
		if address, bare := netip.ParseAddr(text); bare == nil {
			server, err = netip.AddrPortFrom(address, 53), nil
		}
		if err != nil || server.Port() == 0 {
			e.bad(name, value, "must be addresses with or without a port, such as 10.0.0.53,[2001:db8::53]:5353")
			return nil
		}
		servers = append(servers, server)
	}
	if len(servers) > maxNameservers {
		e.bad(name, value, fmt.Sprintf("must be at most %d", maxNameservers))
	}
	return servers
}

func (e *environment) number(least, most int, names ...string) int {
	name, value := e.first(names)
	if name == "" {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		e.bad(name, value, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return n
}

func (e *environment) backend(names ...string) microvm.MemoryBackend {
	name, value := e.first(names)
	backend := microvm.MemoryBackend(value)
	if backend != "" && backend != microvm.MemoryFile && backend != microvm.MemoryUFFD {
		e.bad(name, value, "must be file or uffd")
	}
	return backend
}

func (e *environment) pagerLoss(names ...string) PagerLoss {
	name, value := e.first(names)
	loss := PagerLoss(value)
	if loss != "" && loss != PagerRestart && loss != PagerEnd {
		e.bad(name, value, "must be restart or end")
	}
	return loss
}

func (e *environment) truth(unset bool, names ...string) bool {
	name, value := e.first(names)
	switch value {
	case "":
		return unset
	case "1", "true", "TRUE", "True", "yes", "on":
		return true
	case "0", "false", "FALSE", "False", "no", "NO", "off":
		return false
	}
	e.bad(name, value, "must be 1, true, yes, on, 0, false, no or off")
	return unset
}

func (e *environment) bad(name, value, reason string) {
	if e.err == nil {
		e.err = fmt.Errorf("environment: %w", &microvm.FieldError{Field: name, Value: value, Reason: reason})
	}
}
