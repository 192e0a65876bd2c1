package microvm

import (
	"maps"
	"slices"
)

// Spec says what a machine shall be. It is plain data: the zero value asks for the driver's defaults.
// A driver writes the resolved one, with defaults filled in, to [Info].
type Spec struct {
	// VCPUs is the number of virtual CPUs, 1 to 32. Optional: the driver's default.
	VCPUs int `json:"vcpus,omitempty"`
	// MemoryMiB is the guest's memory in MiB, 1 to 1048576. Optional: the driver's default.
	MemoryMiB int `json:"memory_mib,omitempty"`

	// Kernel is the absolute path of an uncompressed kernel, an ELF vmlinux on x86_64, an Image on arm64, or the name of one that the driver has: a text without a slash.
	// Optional: the driver's default.
	Kernel string `json:"kernel,omitempty"`
	// Initrd is the path of an initial RAM file system. Optional: with Image, the driver's own, which has the agent;
	// else none.
	Initrd string `json:"initrd,omitempty"`
	// KernelArgs is appended to the driver's kernel command line: at most 1024 bytes of printable ASCII. Optional.
	KernelArgs string `json:"kernel_args,omitempty"`

	// Image is the absolute path of a base image, or the name of one that the driver has, such as "debian:12": a file system that many machines share read-only, each with a writable
	// layer of its own over it. The guest agent boots it, whatever is in it. At most one of Image, Rootfs and
	// Diskless is set; none of them asks for the driver's default.
	Image string `json:"image,omitempty"`
	// Rootfs is the absolute path of a disk with an init of its own, or the name of a stack that the driver has: a text without a slash. The machine has no agent.
	Rootfs string `json:"rootfs,omitempty"`
	// RootfsWritable gives the machine a private, writable copy of Rootfs. Otherwise it is shared, read-only.
	RootfsWritable bool `json:"rootfs_writable,omitempty"`
	// RootfsMiB is the size in MiB of the private copy, whose ext4 is grown to it, 1 to 16777216 and not less than Rootfs has. It is sparse. Needs
	// RootfsWritable. Optional: as Rootfs.
	RootfsMiB int `json:"rootfs_mib,omitempty"`
	// Diskless boots the kernel with no disk: for kernels, or initial RAM file systems, that need none.
	Diskless bool `json:"diskless,omitempty"`

	// LayerMiB is the size of the writable layer over Image in MiB, 16 to 16777216. It is sparse: it costs what is
	// written to it. Only with Image. Optional: the driver's default.
	LayerMiB int `json:"layer_mib,omitempty"`

	// LayerInMemory has no disk for the layer over Image: what is written is in the guest's memory, of which it can take up to a half, and is gone with Stop. Only with Image,
	// and not with LayerMiB.
	LayerInMemory bool `json:"layer_in_memory,omitempty"`

	// DiskLimit bounds each of the machine's own disks: base and layer, or Rootfs. Needs one of them. Optional: no limit.
	DiskLimit *RateLimit `json:"disk_limit,omitempty"`

	// Drives are disks beside the machine's own: at most 8. The guest sees them after base and layer, or after Rootfs, in this order: with Image as
	// /dev/vdc, /dev/vdd …, with Rootfs or LayerInMemory from /dev/vdb, with Diskless from /dev/vda. Optional.
	Drives []Drive `json:"drives,omitempty"`

	// TrackDirty has the VMM remember which pages the guest writes: what snapshots need that hold no others (SnapshotOptions.Diff). It costs the guest a fault for each page that it writes
	// first after a snapshot.
	TrackDirty bool `json:"track_dirty,omitempty"`

	// Network is the machine's network interface. Optional: the driver's default, which lets nothing out and nothing in.
	Network *Network `json:"network,omitempty"`

	// Labels are the caller's own: at most 64, keys 1 to 63 of A–Z, a–z, 0–9, '.', '_', '-' and '/', values at most 256
	// bytes of printable UTF-8. Optional.
	Labels map[string]string `json:"labels,omitempty"`
}

// Drive is a disk that outlives the machine, or that machines share.
type Drive struct {
	// Path is the absolute path of a raw image, or, writable, of a block device. Not of a symbolic link.
	Path string `json:"path"`
	// ReadOnly shares the image among any number of machines: each sees it as it was at its Create. Otherwise the machine writes to the caller's own file or device, which is its
	// alone from Create to Destroy: [ErrBusy] names the machine that has it already. The file must then be on the file system of the driver's jails, and belongs to the
	// VM's user meanwhile; Destroy gives it back.
	ReadOnly bool `json:"read_only,omitempty"`
	// Limit bounds what the guest does with the drive. Optional: no limit.
	Limit *RateLimit `json:"limit,omitempty"`
}

// RateLimit bounds what a guest does with a disk, reads and writes together, or in one direction of its network. What is beyond waits. A zero field is no limit.
type RateLimit struct {
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"` // 4096 to 1 TiB.
	BytesBurst     int64 `json:"bytes_burst,omitempty"`      // Once, at the start of a run, so many more at full speed; at most 1 TiB. Needs BytesPerSecond.
	OpsPerSecond   int64 `json:"ops_per_second,omitempty"`   // Requests of the guest's, or packets, 1 to 1000000000.
	OpsBurst       int64 `json:"ops_burst,omitempty"`        // As BytesBurst; at most 1000000000. Needs OpsPerSecond.
}

// Copy returns a copy that shares nothing with s.
func (s Spec) Copy() Spec {
	s.DiskLimit = s.DiskLimit.copy()
	s.Drives = slices.Clone(s.Drives)
	for i := range s.Drives {
		s.Drives[i].Limit = s.Drives[i].Limit.copy()
	}
	s.Network = s.Network.copy()
	s.Labels = maps.Clone(s.Labels)
	return s
}

func (l *RateLimit) copy() *RateLimit {
	if l == nil {
		return nil
	}
	c := *l
	return &c
}
