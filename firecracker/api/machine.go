package api

import "context"

// MachineConfig is CPUs and memory.
type MachineConfig struct {
	VCPUCount       int    `json:"vcpu_count"`                  // 1 to 32; with SMT 1 or even.
	MemSizeMiB      int    `json:"mem_size_mib"`                // MiB, 1 or more; with huge pages even. Not less than the balloon.
	SMT             bool   `json:"smt,omitempty"`               // Two vCPUs a core. x86_64 only.
	CPUTemplate     string `json:"cpu_template,omitempty"`      // "T2", "T2S", "T2CL", "T2A", "C3", on arm64 "V1N1", or "None". Deprecated by Firecracker: say CPUConfig.
	TrackDirtyPages bool   `json:"track_dirty_pages,omitempty"` // For diff snapshots: the host's pages of the guest are 4 KiB then.
	HugePages       string `json:"huge_pages,omitempty"`        // "None", the default, or "2M", of hugetlbfs, which must have enough of them. Before 1.14 not with a balloon.
}

// MachineConfigPatch changes some of a MachineConfig. Zero fields stay; one at least must be set, and before 1.11 both MemSizeMiB and TrackDirtyPages.
type MachineConfigPatch struct {
	VCPUCount       int    `json:"vcpu_count,omitempty"`
	MemSizeMiB      int    `json:"mem_size_mib,omitempty"`
	SMT             *bool  `json:"smt,omitempty"`
	CPUTemplate     string `json:"cpu_template,omitempty"`
	TrackDirtyPages *bool  `json:"track_dirty_pages,omitempty"`
	HugePages       string `json:"huge_pages,omitempty"`
}

// PutMachineConfig sets CPUs and memory, before the start.
func (c *Client) PutMachineConfig(ctx context.Context, m MachineConfig) error {
	return c.call(ctx, "PUT", "/machine-config", m, nil)
}

// PatchMachineConfig changes CPUs and memory, before the start.
func (c *Client) PatchMachineConfig(ctx context.Context, m MachineConfigPatch) error {
	return c.call(ctx, "PATCH", "/machine-config", m, nil)
}

// GetMachineConfig returns CPUs and memory, before and after the start. Before any was set there are defaults: one vCPU, 128 MiB.
func (c *Client) GetMachineConfig(ctx context.Context) (m MachineConfig, err error) {
	return m, c.call(ctx, "GET", "/machine-config", nil, &m)
}

// BootSource is the kernel.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"`     // An ELF vmlinux; on arm64 an Image. It is read at the start.
	InitrdPath      string `json:"initrd_path,omitempty"` // Optional.
	BootArgs        string `json:"boot_args,omitempty"`   // Optional: Firecracker's own.
}

// PutBootSource sets the kernel, before the start.
func (c *Client) PutBootSource(ctx context.Context, b BootSource) error {
	return c.call(ctx, "PUT", "/boot-source", b, nil)
}

// CPUConfig is a custom CPU template. Numbers are text, "0x…", "0b…" or decimal. Bitmaps are "0b" and up to as many characters as there are bits, 0, 1, or x to leave a bit as it
// is, with underscores between.
type CPUConfig struct {
	KVMCapabilities []string              `json:"kvm_capabilities,omitempty"` // Decimal numbers that the host must have, too, or with a ! before them need not have.
	CPUIDModifiers  []CPUIDLeafModifier   `json:"cpuid_modifiers,omitempty"`  // x86_64 only.
	MSRModifiers    []MSRModifier         `json:"msr_modifiers,omitempty"`    // x86_64 only.
	RegModifiers    []ARMRegisterModifier `json:"reg_modifiers,omitempty"`    // arm64 only.
	VCPUFeatures    []VCPUFeatures        `json:"vcpu_features,omitempty"`    // arm64 only.
}

// CPUIDLeafModifier changes a leaf of CPUID.
type CPUIDLeafModifier struct {
	Leaf      string                  `json:"leaf"`
	Subleaf   string                  `json:"subleaf"`
	Flags     int32                   `json:"flags"` // KVM's feature flags of the leaf.
	Modifiers []CPUIDRegisterModifier `json:"modifiers"`
}

// CPUIDRegisterModifier changes a register of a leaf.
type CPUIDRegisterModifier struct {
	Register string `json:"register"` // "eax", "ebx", "ecx" or "edx".
	Bitmap   string `json:"bitmap"`   // 32 bits.
}

// MSRModifier changes a model-specific register.
type MSRModifier struct {
	Addr   string `json:"addr"`
	Bitmap string `json:"bitmap"` // 64 bits.
}

// ARMRegisterModifier changes a register of arm64.
type ARMRegisterModifier struct {
	Addr   string `json:"addr"`
	Bitmap string `json:"bitmap"` // Up to 128 bits.
}

// VCPUFeatures changes KVM's features of an arm64 vCPU.
type VCPUFeatures struct {
	Index  int32  `json:"index"`
	Bitmap string `json:"bitmap"` // 32 bits.
}

// PutCPUConfig sets a custom CPU template, before the start. It and MachineConfig.CPUTemplate take each other's place: the last one counts. No call tells it.
func (c *Client) PutCPUConfig(ctx context.Context, cpu CPUConfig) error {
	return c.call(ctx, "PUT", "/cpu-config", cpu, nil)
}
