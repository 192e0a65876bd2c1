package api

// ConfigFile is what --config-file reads, and what GET /vm/config answers.
type ConfigFile struct {
	BootSource    BootSource    `json:"boot-source"`
	Drives        []Drive       `json:"drives"` // Required, if empty.
	MachineConfig MachineConfig `json:"machine-config"`
	Vsock         *Vsock        `json:"vsock,omitempty"`
	Entropy       *Entropy      `json:"entropy,omitempty"`
}

// BootSource is the kernel.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args,omitempty"`
}

// Drive is a block device. Devices get their names in the order of the list: vda, vdb.
type Drive struct {
	DriveID      string `json:"drive_id"`
	PathOnHost   string `json:"path_on_host"`
	IsRootDevice bool   `json:"is_root_device"` // At most one; root= is added to the kernel's arguments.
	IsReadOnly   bool   `json:"is_read_only"`
}

// MachineConfig is CPUs and memory.
type MachineConfig struct {
	VCPUCount  int `json:"vcpu_count"`   // 1 to 32.
	MemSizeMiB int `json:"mem_size_mib"` // MiB.
}

// Vsock is the socket device.
type Vsock struct {
	GuestCID uint32 `json:"guest_cid"` // 3 or more.
	UDSPath  string `json:"uds_path"`
}

// Entropy is the random device, since 1.4.
type Entropy struct{}
