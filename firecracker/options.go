//go:build linux

package firecracker

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
)

// Options say where the driver finds its parts and keeps its state, and what a Spec's zero fields mean. The zero value of each field is its default.
type Options struct {
	Firecracker string // Path of the firecracker binary. Optional: /usr/local/bin/firecracker.
	Jailer      string // Path of the jailer binary of the same release. Optional: jailer beside Firecracker.
	// Binaries are paths of further firecracker binaries, of other versions. A snapshot is restored by the version that made it, the first that has it of Firecracker and these; what boots,
	// boots on Firecracker. The jailer of one is the one beside it that is called as it is, with jailer for firecracker, such as jailer-v1.13.0 beside firecracker-v1.13.0; Jailer where there
	// is none. Optional: none.
	Binaries []string

	StateDir  string // Records, disks and the store. Optional: /var/lib/microvm/state.
	SocketDir string // What dies with a reboot; rather on tmpfs. Optional: /var/run/microvm/sockets.
	JailDir   string // Jails; on StateDir's file system, so that files can be linked. Optional: StateDir/jails.

	Kernel  string // Spec.Kernel's default. Optional: /var/lib/firecracker/vmlinux.
	Modules string // Modules of Kernel: a directory lib/modules/RELEASE. Optional: the one beside Kernel.
	Image   string // Spec.Image's default. Optional.
	Rootfs  string // Spec.Rootfs's default where Image is empty. Optional: /var/lib/firecracker/rootfs/default.ext4.
	Agent   string // The guest agent's binary. Optional: microvm-agent beside the executable, else /usr/local/lib/microvm/agent.

	// TemplateDir has the stacks that a Spec.Rootfs without a slash names: TemplateDir/NAME/rootfs.ext4. Optional: /var/lib/microvm/rootfs-templates.
	TemplateDir string

	VCPUs     int // Spec.VCPUs' default. Optional: 1.
	MemoryMiB int // Spec.MemoryMiB's default, in MiB. Optional: 256.
	LayerMiB  int // Spec.LayerMiB's default, in MiB. Optional: 1024.

	// MemoryBackend is RestoreOptions.Backend's default. Optional: a file.
	MemoryBackend microvm.MemoryBackend
	// PagerLoss is what becomes of a machine that is restored page by page when the helper that serves its memory is killed. It is kept for as long as the machine runs. Optional: PagerRestart.
	PagerLoss PagerLoss

	// WaitingVMMs is how many VMMs wait, jailed and with all that a machine has, for the next restores of a snapshot, once that was restored: such a restore is only a load. It goes for
	// each of the four that were restored last, of a snapshot that is not ephemeral and a RestoreOptions.Backend. They end with the Runtime. Each costs some MiB of memory, a slot, and a copy of the snapshot's disk, or a reflink.
	// Optional: none.
	WaitingVMMs int

	// Bare runs VMMs as this process's user without a jail. For development: a guest that breaks out of its VMM is this user.
	Bare bool
	// FirstUID is the first of UIDCount users and groups that jailed VMMs run as, one for each machine. They should belong to nobody else.
	// Optional: 1900000000, 10000: where systemd, user namespaces and the nobody user are not (systemd's UIDS-GIDS).
	FirstUID, UIDCount int
	// Slice is the cgroup v2 under which each VMM has a leaf of its own, as a path from the hierarchy's root. Optional: /microvm.slice.
	Slice string

	// NoNetwork gives machines whose Spec.Network is nil no network interface, as Bare does anyway. Otherwise they get one that lets nothing out and nothing in.
	NoNetwork bool
	// Subnet is the IPv4 network of the machines' addresses, /8 to /28, one address for each machine; it must overlap no route of the host's. What it was first stays, for a state directory
	// that has machines. Optional: a /18 that is free.
	Subnet     netip.Prefix
	Uplink     string // The host's interface to the outside. Optional: whichever the host's routes lead to.
	HelperPath string // A program whose main calls Helper, such as `microvm`. Optional: this one, if its main does.
	MTU        int    // Of the machines' network, in bytes, 576 to 65535. Optional: the uplink's.
	// Nameservers are asked for the names that machines' policies allow, from the host's network namespace: at most 3. Processes that share a state directory should have the same.
	// Optional: those of /etc/resolv.conf, as they are at each question.
	Nameservers []netip.AddrPort
	// TellNames has the helper answer machines whose policy has no names, too: it refuses all that they ask for, and Stats tells what that was. Otherwise nobody answers them, and a helper
	// is started only for a machine whose policy has names.
	TellNames bool

	Limits Limits       // Optional: none.
	Logger *slog.Logger // Optional: silent.

	hook    func(point string) error // injects faults into steps; set by tests
	hostNet *netns.Namespace         // stands for the host's; set by tests
	thawn   bool                     // restored machines go on without being made their own; set by a test that shows what then happens
}

// PagerLoss is what becomes of a machine when the helper that serves its memory is killed.
type PagerLoss string

// What becomes of it. In both cases its guest never reads anything else than its memory.
const (
	PagerRestart PagerLoss = "restart" // Another helper takes over at once where a driver lives, else at the next Recover. The guest stands still until then.
	PagerEnd     PagerLoss = "end"     // The machine ends at once, also where no driver lives: a second helper sees to that. Its Exit says why.
)

// Limits bound what all machines of a state directory have together. Create answers microvm.ErrExhausted beyond them. Zero is no limit.
type Limits struct {
	VMs       int // Machines.
	MemoryMiB int // Sum of the guests' memory in MiB, whether they run or not.
	DiskMiB   int // Sum of the writable disks' sizes in MiB, whether they are filled or not.
	// SnapshotMiB is how much of the host's disk snapshots have in MiB. VM.Snapshot and Runtime.ImportSnapshot answer microvm.ErrExhausted beyond it.
	SnapshotMiB int
}

const (
	defaultBinary    = "/usr/local/bin/firecracker"
	defaultStateDir  = "/var/lib/microvm/state"
	defaultSocketDir = "/var/run/microvm/sockets"
	defaultKernel    = "/var/lib/firecracker/vmlinux"
	defaultRootfs    = "/var/lib/firecracker/rootfs/default.ext4"
	defaultTemplates = "/var/lib/microvm/rootfs-templates"
	defaultSlice     = "/microvm.slice"
	defaultFirstUID  = 1_900_000_000
	defaultUIDCount  = 10000
	maxSnapshotMiB   = 1 << 40 // which has a number of bytes
)

// resolve fills defaults in and checks what can be checked without the host.
func (o Options) resolve() (Options, error) {
	o = o.Defaults()
	return o, o.check()
}

// Defaults returns the options with defaults in place of zero values, as New takes them.
func (o Options) Defaults() Options {
	setDefault(&o.Firecracker, defaultBinary)
	setDefault(&o.Jailer, filepath.Join(filepath.Dir(o.Firecracker), "jailer"))
	setDefault(&o.StateDir, defaultStateDir)
	setDefault(&o.SocketDir, defaultSocketDir)
	setDefault(&o.JailDir, filepath.Join(o.StateDir, "jails"))
	setDefault(&o.Kernel, defaultKernel)
	if o.Image == "" {
		setDefault(&o.Rootfs, defaultRootfs)
	}
	setDefault(&o.TemplateDir, defaultTemplates)
	setDefault(&o.Slice, defaultSlice)
	setDefault(&o.VCPUs, 1)
	setDefault(&o.MemoryMiB, 256)
	setDefault(&o.LayerMiB, 1024)
	setDefault(&o.FirstUID, defaultFirstUID)
	setDefault(&o.UIDCount, defaultUIDCount)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) check() error {
	for _, path := range []struct{ field, value string }{
		{"Firecracker", o.Firecracker}, {"Jailer", o.Jailer}, {"StateDir", o.StateDir}, {"SocketDir", o.SocketDir},
		{"JailDir", o.JailDir}, {"Kernel", o.Kernel}, {"Modules", o.Modules}, {"Image", o.Image}, {"Rootfs", o.Rootfs}, {"TemplateDir", o.TemplateDir},
		{"Agent", o.Agent}, {"HelperPath", o.HelperPath}, {"Slice", o.Slice},
	} {
		if path.value != "" && (!filepath.IsAbs(path.value) || filepath.Clean(path.value) != path.value) {
			return badOption(path.field, path.value, "must be a clean absolute path")
		}
	}
	for i, path := range o.Binaries {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return badOption(fmt.Sprintf("Binaries[%d]", i), path, "must be a clean absolute path")
		}
	}
	if o.MemoryBackend != "" && o.MemoryBackend != microvm.MemoryFile && o.MemoryBackend != microvm.MemoryUFFD {
		return badOption("MemoryBackend", o.MemoryBackend, `must be "file" or "uffd"`)
	}
	if o.PagerLoss != "" && o.PagerLoss != PagerRestart && o.PagerLoss != PagerEnd {
		return badOption("PagerLoss", o.PagerLoss, `must be "restart" or "end"`)
	}
	if o.Slice == "/" {
		return badOption("Slice", o.Slice, "must not be the hierarchy's root")
	}
	if o.FirstUID < 1 || o.UIDCount < 1 || o.FirstUID+o.UIDCount > 1<<31 {
		return badOption("FirstUID", fmt.Sprintf("%d+%d", o.FirstUID, o.UIDCount), "must be a range of users without root")
	}
	if o.Limits.VMs < 0 || o.Limits.MemoryMiB < 0 || o.Limits.DiskMiB < 0 || o.Limits.SnapshotMiB < 0 {
		return badOption("Limits", o.Limits, "must not be negative")
	}
	if int64(o.Limits.SnapshotMiB) > maxSnapshotMiB {
		return badOption("Limits.SnapshotMiB", o.Limits.SnapshotMiB, fmt.Sprintf("must be at most %d", int64(maxSnapshotMiB)))
	}
	if o.WaitingVMMs < 0 || o.WaitingVMMs > maxWaiting {
		return badOption("WaitingVMMs", o.WaitingVMMs, fmt.Sprintf("must be 0 to %d", maxWaiting))
	}
	if o.MTU != 0 && (o.MTU < minMTU || o.MTU > maxMTU) {
		return badOption("MTU", o.MTU, fmt.Sprintf("must be %d to %d, or 0 for the uplink's", minMTU, maxMTU))
	}
	if len(o.Uplink) > maxLink || strings.ContainsAny(o.Uplink, "/ \t\n:") {
		return badOption("Uplink", o.Uplink, "must be the name of a network interface")
	}
	if len(o.Nameservers) > maxNameservers {
		return badOption("Nameservers", len(o.Nameservers), fmt.Sprintf("must be at most %d", maxNameservers))
	}
	for _, server := range o.Nameservers {
		if !server.IsValid() || server.Port() == 0 {
			return badOption("Nameservers", server, "must be an address and a port")
		}
	}
	if o.Subnet.IsValid() {
		if err := network.CheckSubnet(o.Subnet); err != nil {
			return badOption("Subnet", o.Subnet, err.Error())
		}
	}
	defaults := microvm.Spec{VCPUs: o.VCPUs, MemoryMiB: o.MemoryMiB, LayerMiB: o.LayerMiB}
	if err := defaults.Validate(); err != nil {
		return fmt.Errorf("default of %w", err)
	}
	return nil
}

func badOption(field string, value any, reason string) error {
	return &microvm.FieldError{Field: "Options." + field, Value: value, Reason: reason}
}
