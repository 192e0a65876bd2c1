package api

// Capability is what some versions can do and others can't, beside the fields that [Check] knows.
type Capability struct {
	Name   string
	Since  string // Releases that brought it, one for each line of versions: "1.14.4 1.15.1".
	Until  string // Releases that took it away, likewise; empty while it is there.
	Arch   string // GOARCH that it is limited to; empty for all.
	Source string // "path@tag" of Firecracker's repository from which this row was read.
}

// What all versions from 1.7 can do is in no row: this package speaks to no older ones.
var (
	ACPI                = Capability{Name: "ACPI, so that kernels find devices without virtio_mmio on the command line", Since: "1.8.0", Arch: "amd64", Source: "CHANGELOG.md@v1.8.0"}
	GenerationID        = Capability{Name: "VMGenID, by which kernels reseed after a restore", Since: "1.8.0", Arch: "amd64", Source: "CHANGELOG.md@v1.8.0"}
	PVH                 = Capability{Name: "PVH boot", Since: "1.12.0", Arch: "amd64", Source: "CHANGELOG.md@v1.12.0"}
	CtrlAltDelACPI      = Capability{Name: "Ctrl-Alt-Del to kernels with ACPI and Firecracker's own boot arguments", Since: "1.12.0", Arch: "amd64", Source: "CHANGELOG.md@v1.12.0"}
	NetworkOverrides    = Capability{Name: "another TAP at restore", Since: "1.12.0", Source: "CHANGELOG.md@v1.12.0"}
	DiffWithoutTracking = Capability{Name: "diff snapshots without dirty tracking, by mincore", Since: "1.13.0", Source: "CHANGELOG.md@v1.13.0"}
	InlineCPUTemplate   = Capability{Name: "a CPU template within the configuration file", Since: "1.13.0", Source: "CHANGELOG.md@v1.13.0"}
	PCI                 = Capability{Name: "--enable-pci", Since: "1.13.0", Source: "CHANGELOG.md@v1.13.0"}
	SerialPath          = Capability{Name: "PUT /serial", Since: "1.14.0", Source: "CHANGELOG.md@v1.14.0"}
	PmemDevices         = Capability{Name: "pmem devices", Since: "1.14.0", Source: "CHANGELOG.md@v1.14.0"}
	MemoryHotplugging   = Capability{Name: "memory hotplug", Since: "1.14.0", Source: "CHANGELOG.md@v1.14.0"}
	FreePageHinting     = Capability{Name: "free page hinting and reporting", Since: "1.14.0", Source: "CHANGELOG.md@v1.14.0"}
	HugePagesBalloon    = Capability{Name: "a balloon in a machine with huge pages", Since: "1.14.0", Source: "docs/hugepages.md@v1.14.0"}
	LogFilesMade        = Capability{Name: "log and metrics files are made where they are missing", Since: "1.14.0", Source: "CHANGELOG.md@v1.14.0"}
	ClockRealtime       = Capability{Name: "kvm-clock goes on at restore", Since: "1.14.4 1.15.1", Arch: "amd64", Source: "src/vmm/src/vmm_config/snapshot.rs@v1.14.4"}
	VMClock             = Capability{Name: "VMClock", Since: "1.15.0", Source: "CHANGELOG.md@v1.15.0"}
	VsockOverrides      = Capability{Name: "another vsock path at restore", Since: "1.16.0", Source: "CHANGELOG.md@v1.16.0"}
	SerialRateLimit     = Capability{Name: "rate limit of the console", Since: "1.16.0", Source: "CHANGELOG.md@v1.16.0"}
	DeviceHotplug       = Capability{Name: "devices added to and taken from a started VM with PCI", Since: "1.16.0", Source: "CHANGELOG.md@v1.16.0"}
	InterfaceMTU        = Capability{Name: "MTU told to the guest", Since: "1.16.0", Source: "CHANGELOG.md@v1.16.0"}
)

// Supports returns an [*UnsupportedError] when v can't do it. It does not look at the architecture.
func (v Version) Supports(c Capability) error { return v.within(c.Name, c.Since, c.Until) }

// within returns an [*UnsupportedError] for what, when v is older than since or not older than until; either may be empty.
func (v Version) within(what, since, until string) error {
	if since != "" && !v.since(releases(since)) {
		return &UnsupportedError{What: what, Version: v, Needs: since}
	}
	if until != "" && v.since(releases(until)) {
		return &UnsupportedError{What: what, Version: v, Needs: until, Removed: true}
	}
	return nil
}
