//go:build linux

package firecracker

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// variables are all that OptionsFromEnv reads, each spelling of its own, with a good and a bad value.
var variables = map[string]struct {
	good, bad string
	want      Options
}{
	"MICROVM_FIRECRACKER_BIN":        {"/opt/fc/firecracker", "firecracker", Options{Firecracker: "/opt/fc/firecracker"}},
	"MICROVM_JAILER_BIN":             {"/opt/fc/jailer", "./jailer", Options{Jailer: "/opt/fc/jailer"}},
	"MICROVM_FIRECRACKER_BINARIES":   {"/opt/a/firecracker:/opt/b/firecracker", "/opt/a/firecracker:", Options{Binaries: []string{"/opt/a/firecracker", "/opt/b/firecracker"}}},
	"MICROVM_FIRECRACKER_STATE_DIR":  {"/srv/state", "/srv/../state", Options{StateDir: "/srv/state"}},
	"MICROVM_STATE_DIR":              {"/srv/state", "state", Options{StateDir: "/srv/state"}},
	"MICROVM_FIRECRACKER_SOCKET_DIR": {"/run/sockets", "/run/sockets/", Options{SocketDir: "/run/sockets"}},
	"MICROVM_SOCKET_DIR":             {"/run/sockets", "run", Options{SocketDir: "/run/sockets"}},
	"MICROVM_JAILER_CHROOT_BASE":     {"/srv/jails", "jails", Options{JailDir: "/srv/jails"}},
	"MICROVM_FIRECRACKER_KERNEL":     {"/srv/vmlinux", "vmlinux", Options{Kernel: "/srv/vmlinux"}},
	"MICROVM_KERNEL":                 {"/srv/vmlinux", "vmlinux", Options{Kernel: "/srv/vmlinux"}},
	"MICROVM_KERNEL_MODULES":         {"/srv/lib/modules/6.1", "6.1", Options{Modules: "/srv/lib/modules/6.1"}},
	"MICROVM_IMAGE":                  {"/srv/debian.ext4", "debian:12", Options{Image: "/srv/debian.ext4"}},
	"MICROVM_FIRECRACKER_ROOTFS":     {"/srv/root.ext4", "root.ext4", Options{Rootfs: "/srv/root.ext4"}},
	"MICROVM_ROOTFS":                 {"/srv/root.ext4", "root.ext4", Options{Rootfs: "/srv/root.ext4"}},
	"MICROVM_ROOTFS_TEMPLATE_DIR":    {"/srv/stacks", "stacks", Options{TemplateDir: "/srv/stacks"}},
	"MICROVM_AGENT_BIN":              {"/opt/agent", "agent", Options{Agent: "/opt/agent"}},
	"MICROVM_HELPER_BIN":             {"/usr/bin/microvm", "microvm", Options{HelperPath: "/usr/bin/microvm"}},
	"MICROVM_FIRECRACKER_VCPU":       {"4", "0", Options{VCPUs: 4}},
	"MICROVM_FIRECRACKER_VCPU_COUNT": {"32", "33", Options{VCPUs: 32}},
	"MICROVM_VCPU":                   {"1", "one", Options{VCPUs: 1}},
	"MICROVM_FIRECRACKER_MEM_MIB":    {"512", "-512", Options{MemoryMiB: 512}},
	"MICROVM_MEM_MIB":                {"1048576", "512M", Options{MemoryMiB: 1 << 20}},
	"MICROVM_LAYER_MIB":              {"16", "15", Options{LayerMiB: 16}},
	"MICROVM_MEM_BACKEND":            {"uffd", "disk", Options{MemoryBackend: microvm.MemoryUFFD}},
	"MICROVM_WAITING_VMMS":           {"3", "1001", Options{WaitingVMMs: 3}},
	"MICROVM_PAGER_LOSS":             {"end", "stop", Options{PagerLoss: PagerEnd}},
	"MICROVM_COMPOSE_JAILER":         {"0", "perhaps", Options{Bare: true}},
	"MICROVM_JAILER_UID":             {"70000", "0", Options{FirstUID: 70000}},
	"MICROVM_JAILER_UID_COUNT":       {"100", "99999999999999999999", Options{UIDCount: 100}},
	"MICROVM_COMPOSE_NETWORK":        {"off", "maybe", Options{NoNetwork: true}},
	"MICROVM_NETWORK_SUBNET":         {"172.30.0.1/24", "172.30.0.0", Options{Subnet: netip.MustParsePrefix("172.30.0.0/24")}},
	"MICROVM_NETWORK_EGRESS":         {"eth0", "an interface of more than 15 bytes", Options{Uplink: "eth0"}},
	"MICROVM_NETWORK_MTU":            {"1400", "70000", Options{MTU: 1400}},
	"MICROVM_NAMESERVERS":            {"10.0.0.53, [2001:db8::53]:5353", "10.0.0.53:", Options{Nameservers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53"), netip.MustParseAddrPort("[2001:db8::53]:5353")}}},
	"MICROVM_JAILER_CGROUP_PARENT":   {"microvm.slice", "../microvm.slice", Options{Slice: "/microvm.slice"}},
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

func TestOptionsFromEnv(t *testing.T) {
	for name, v := range variables {
		t.Run(name, func(t *testing.T) {
			if got, err := OptionsFromEnv(lookup(map[string]string{name: v.good})); err != nil || !reflect.DeepEqual(got, v.want) {
				t.Errorf("%q: %+v, %v; want %+v", v.good, got, err, v.want)
			}
			if got, err := OptionsFromEnv(lookup(map[string]string{name: ""})); err != nil || !reflect.DeepEqual(got, Options{}) {
				t.Errorf("empty: %+v, %v; want nothing", got, err)
			}
			_, err := OptionsFromEnv(lookup(map[string]string{name: v.bad}))
			if field := (*microvm.FieldError)(nil); !errors.Is(err, microvm.ErrInvalid) || !errors.As(err, &field) || field.Field != name || !strings.Contains(err.Error(), v.bad) {
				t.Errorf("%q: %v, want an error that names the variable and its value", v.bad, err)
			}
		})
	}
}

func TestFromEnvNamesTheVariable(t *testing.T) {
	t.Setenv("MICROVM_FIRECRACKER_VCPU", "many")
	if _, err := FromEnv(); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "MICROVM_FIRECRACKER_VCPU") {
		t.Errorf("from env: %v", err)
	}
}

// TestEnvSpellings: of several spellings the documented one counts; the jailer's switch is on unless it says otherwise.
func TestEnvSpellings(t *testing.T) {
	got, err := OptionsFromEnv(lookup(map[string]string{"MICROVM_FIRECRACKER_VCPU": "2", "MICROVM_FIRECRACKER_VCPU_COUNT": "3", "MICROVM_VCPU": "4"}))
	if err != nil || got.VCPUs != 2 {
		t.Errorf("%d CPUs, %v", got.VCPUs, err)
	}
	for value, bare := range map[string]bool{
		"1": false, "true": false, "TRUE": false, "True": false, "yes": false, "on": false,
		"0": true, "false": true, "FALSE": true, "False": true, "no": true, "NO": true, "off": true,
	} {
		if got, err := OptionsFromEnv(lookup(map[string]string{"MICROVM_COMPOSE_JAILER": value})); err != nil || got.Bare != bare {
			t.Errorf("%q: bare %t, %v", value, got.Bare, err)
		}
	}
}

// TestEnvIsDocumented: the documentation names what is read, and these tests know all of it.
func TestEnvIsDocumented(t *testing.T) {
	source, err := os.ReadFile("env.go")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for _, match := range regexp.MustCompile(`"(MICROVM_[A-Z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		read[match[1]] = true
	}
	if got, want := slices.Sorted(maps.Keys(read)), slices.Sorted(maps.Keys(variables)); !slices.Equal(got, want) {
		t.Errorf("read %q, tested %q", got, want)
	}
	comment, _, _ := strings.Cut(string(source), "func OptionsFromEnv")
	for name := range read {
		short := strings.TrimPrefix(name, "MICROVM_JAILER")
		if !strings.Contains(comment, name) && !strings.Contains(comment, short) {
			t.Errorf("%s is not documented", name)
		}
	}
}

// TestDefaults are the documented ones.
func TestDefaults(t *testing.T) {
	got := Options{}.Defaults()
	for _, tc := range []struct{ name, got, want string }{
		{"Firecracker", got.Firecracker, "/usr/local/bin/firecracker"}, {"Jailer", got.Jailer, "/usr/local/bin/jailer"},
		{"StateDir", got.StateDir, "/var/lib/microvm/state"}, {"SocketDir", got.SocketDir, "/var/run/microvm/sockets"},
		{"Kernel", got.Kernel, "/var/lib/firecracker/vmlinux"}, {"Rootfs", got.Rootfs, "/var/lib/firecracker/rootfs/default.ext4"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s %s, want %s", tc.name, tc.got, tc.want)
		}
	}
	if got.VCPUs != 1 || got.MemoryMiB != 256 || got.Bare {
		t.Errorf("%d CPUs, %d MiB, bare %t", got.VCPUs, got.MemoryMiB, got.Bare)
	}
}

// TestBadOptions: what does not make sense is refused by New and names the field; nothing is made.
func TestBadOptions(t *testing.T) {
	good := Options{StateDir: t.TempDir() + "/state", SocketDir: t.TempDir() + "/run", Bare: true}
	for field, spoil := range map[string]func(*Options){
		"Options.Firecracker":        func(o *Options) { o.Firecracker = "firecracker" },
		"Options.Jailer":             func(o *Options) { o.Jailer = "a/b" },
		"Options.Binaries[1]":        func(o *Options) { o.Binaries = []string{"/opt/firecracker", "firecracker"} },
		"Options.StateDir":           func(o *Options) { o.StateDir = "state" },
		"Options.SocketDir":          func(o *Options) { o.SocketDir = "/a/../b" },
		"Options.JailDir":            func(o *Options) { o.JailDir = "jails/" },
		"Options.Kernel":             func(o *Options) { o.Kernel = "k" },
		"Options.Modules":            func(o *Options) { o.Modules = "m" },
		"Options.Image":              func(o *Options) { o.Image = "i" },
		"Options.Rootfs":             func(o *Options) { o.Rootfs = "r" },
		"Options.Agent":              func(o *Options) { o.Agent = "a" },
		"Options.Slice":              func(o *Options) { o.Slice = "s" },
		"Options.FirstUID":           func(o *Options) { o.FirstUID = -1 },
		"Options.Nameservers":        func(o *Options) { o.Nameservers = []netip.AddrPort{{}} },
		"Options.Limits":             func(o *Options) { o.Limits.VMs = -1 },
		"Options.Limits.SnapshotMiB": func(o *Options) { o.Limits.SnapshotMiB = 1<<44 + 1 },
		"Spec.VCPUs":                 func(o *Options) { o.VCPUs = 33 },
		"Spec.MemoryMiB":             func(o *Options) { o.MemoryMiB = -1 },
		"Spec.LayerMiB":              func(o *Options) { o.LayerMiB = 1 },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), field+" ") {
			t.Errorf("%s: %v", field, err)
		}
		if exists(good.StateDir) || exists(good.SocketDir) {
			t.Fatalf("%s: directories were made", field)
		}
	}
}
