//go:build linux

package firecracker

import (
	"fmt"
	"path/filepath"
	"runtime"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// The layout that every VMM sees below its root or working directory. It is frozen: snapshots carry these paths.
const (
	kernelPath = "img/kernel"
	initrdPath = "img/initrd"
	basePath   = "img/base"
	configPath = "img/vm.json"
	sharedDir  = "img" // also of drive-N that are read-only; the others are beside it
	layerPath  = "layer"
	vsockPath  = "vsock.sock"
	socketPath = "api.sock"
	logPath    = "firecracker.log"

	loadedState  = "img/state" // of the snapshot that a run begins with
	loadedMemory = "img/memory"
	takenState   = "snapshot.state" // what a VMM in a jail writes a snapshot to
	takenMemory  = "snapshot.memory"

	layerInMemory = "microvm.layer=tmpfs" // the agent's word for it on the kernel's command line

	guestCID   = 3
	baseDrive  = "base"
	layerDrive = "layer"
)

// plan is the configuration of one run, as the VMM sees it: what a Spec comes down to. A writer makes Firecracker's configuration file of it.
type plan struct {
	vcpus, memoryMiB int
	initrd           bool
	trackDirty       bool
	kernelArgs       string
	drives           []plannedDrive
	network          *plannedNetwork // nil where the machine has none
}

type plannedDrive struct {
	id, path       string
	root, readOnly bool
	durable        bool // the guest's flushes reach the host's disk
	limit          *microvm.RateLimit
}

type plannedNetwork struct {
	receive, transmit *microvm.RateLimit
}

func planOf(r *state.Record) plan {
	p := plan{vcpus: r.Spec.VCPUs, memoryMiB: r.Spec.MemoryMiB, initrd: r.Files.Initrd != "", trackDirty: r.Spec.TrackDirty, kernelArgs: kernelArgs(r)}
	if hasNetwork(&r.Spec) {
		p.network = &plannedNetwork{receive: r.Spec.Network.Receive, transmit: r.Spec.Network.Transmit}
	}
	switch {
	case r.Agent && r.Spec.LayerInMemory:
		p.drives = []plannedDrive{{id: baseDrive, path: basePath, readOnly: true}}
	case r.Agent: // The agent finds base and layer as the first two disks, and puts one over the other.
		p.drives = []plannedDrive{{id: baseDrive, path: basePath, readOnly: true}, {id: layerDrive, path: layerPath}}
	case r.Spec.RootfsWritable:
		p.drives = []plannedDrive{{id: layerDrive, path: layerPath, root: true}}
	case r.Spec.Rootfs != "":
		p.drives = []plannedDrive{{id: baseDrive, path: basePath, root: true, readOnly: true}}
	}
	for i := range p.drives {
		p.drives[i].limit = r.Spec.DiskLimit
	}
	for i, drive := range r.Spec.Drives {
		planned := plannedDrive{id: fmt.Sprint("drive", i), path: drivePath(i), readOnly: drive.ReadOnly, durable: !drive.ReadOnly, limit: drive.Limit}
		if drive.ReadOnly {
			planned.path = filepath.Join(sharedDir, planned.path)
		}
		p.drives = append(p.drives, planned)
	}
	return p
}

// drivePath returns where a drive of the Spec's is, or, when it is shared, where it is below img/.
func drivePath(i int) string { return fmt.Sprint("drive-", i) }

// kernelArgs returns the kernel's command line. A reset is the one thing by which a guest ends its VMM, hence reboot=k and panic=1. The
// keyboard stays (no i8042.nokbd): Ctrl-Alt-Del comes through it.
func kernelArgs(r *state.Record) string {
	spec := &r.Spec
	args := "console=ttyS0 reboot=k panic=1 pci=off quiet loglevel=1 i8042.noaux"
	if runtime.GOARCH == "arm64" {
		args = "console=ttyS0 keep_bootcon reboot=k panic=1 pci=off quiet loglevel=1"
	}
	if spec.LayerInMemory {
		args += " " + layerInMemory
	}
	if hasNetwork(spec) && !r.Agent { // a kernel with CONFIG_IP_PNP needs no program for its address
		args += " " + network.KernelArg
	}
	if spec.KernelArgs != "" {
		args += " " + spec.KernelArgs
	}
	return args
}
