package api

// Problem is what some versions must not be used for.
type Problem struct {
	What   string
	Remedy string
	Since  string // The release that brought it; empty for all before Fixed.
	Fixed  string // Releases that mended it, one for each line of versions; empty while none has.
	Source string // "path@tag" of Firecracker's repository from which this row was read.
	Verb   string // What package firecracker therefore refuses to do; empty where a warning is all.
}

// problems are the rows of [Version.Known].
var problems = []Problem{
	{
		What: "after a pause and resume without a snapshot new vsock connections of the host hang", Remedy: "use 1.15.1 where machines are paused",
		Since: "1.16.0", Verb: "pause", Source: "src/vmm/src/devices/virtio/vsock/device.rs@v1.16.1", // kick gates what the host sends until the guest answers an event that was not sent
	}, {
		What: "vsock connections of the guest time out after a restore", Remedy: "use 1.16.1 or later for snapshots",
		Since: "1.16.0", Fixed: "1.16.1", Source: "CHANGELOG.md@v1.16.1",
	}, {
		What: "the jailer refuses cgroups and network namespaces behind symlinks", Remedy: "use 1.16.1 or later",
		Since: "1.16.0", Fixed: "1.16.1", Source: "CHANGELOG.md@v1.16.1",
	}, {
		What: "a guest with x86_64 and more than 3 GiB, or with hotplugged memory, has corrupt memory in diff snapshots", Remedy: "take full snapshots, or use 1.14.2, 1.15.0 or later",
		Since: "1.14.0", Fixed: "1.14.2 1.15.0", Source: "src/vmm/src/vstate/memory.rs@v1.14.0", // it seeks from where it is; all before seek from the start
	}, {
		What: "hotplugged memory that is not aligned to a slot stays out of the guest's reach, or in it when unplugged", Remedy: "ask for multiples of the slot size, or use 1.14.4, 1.15.1 or later",
		Since: "1.14.0", Fixed: "1.14.4 1.15.1", Source: "CHANGELOG.md@v1.14.4",
	}, {
		What: "a VMM that has broken out of its guest can have root overwrite files that are linked into its jail", Remedy: "make every jail afresh, as this library does, or use 1.13.2, 1.14.1, 1.15.0 or later",
		Fixed: "1.13.2 1.14.1 1.15.0", Source: "CHANGELOG.md@v1.13.2",
	}, {
		What: "the guest's console stays silent after a restore when the snapshot was taken while it wrote", Remedy: "use 1.16.0 or later, or the agent",
		Fixed: "1.16.0", Source: "CHANGELOG.md@v1.16.0",
	}, {
		What: "a FIFO without a reader, as log, metrics or console, is an error", Remedy: "use files, or 1.14.2, 1.15.0 or later",
		Since: "1.14.0", Fixed: "1.14.2 1.15.0", Source: "CHANGELOG.md@v1.14.2",
	}, {
		What: "data on vsock is corrupted with guests from Linux 6.17", Remedy: "use 1.14.0 or later",
		Fixed: "1.14.0", Source: "CHANGELOG.md@v1.14.0",
	}, {
		What: "a restored guest's watchdog reports soft lockups", Remedy: "use 1.14.0 or later",
		Fixed: "1.14.0", Source: "CHANGELOG.md@v1.14.0",
	}, {
		What: "a restored guest's vsock connections may take ports that were in use before", Remedy: "use 1.15.0 or later, and take snapshots anew",
		Fixed: "1.15.0", Source: "CHANGELOG.md@v1.15.0",
	}, {
		What: "a diff snapshot without dirty tracking misses pages that were swapped out", Remedy: "track dirty pages, or run without swap",
		Since: "1.13.0", Source: "src/vmm/src/vstate/vm.rs@v1.16.1",
	}, {
		What: "the guest's monotonic clock jumps at a restore by the time since the snapshot, on host kernels from 5.16", Remedy: "use 1.14.4, 1.15.1 or later",
		Fixed: "1.14.4 1.15.1", Source: "CHANGELOG.md@v1.14.4",
	}, {
		What: "kernels before Linux 6.10 do not bind the VM generation id, and don't reseed after a restore", Remedy: "reseed through the agent, or use 1.16.0 or later",
		Fixed: "1.16.0", Source: "CHANGELOG.md@v1.16.0",
	}, {
		What: "a page-fault handler may be sent an empty message in place of the memory's layout", Remedy: "use 1.12.0 or later",
		Fixed: "1.12.0", Source: "CHANGELOG.md@v1.12.0",
	}, {
		What: "a balloon that grows after a restore with a page-fault handler does not tell the handler", Remedy: "use 1.11.0 or later",
		Fixed: "1.11.0", Source: "CHANGELOG.md@v1.11.0",
	}, {
		What: "a guest can stall the VMM through the balloon's statistics", Remedy: "ask for no statistics, or use 1.14.4, 1.15.1 or later",
		Fixed: "1.14.4 1.15.1", Source: "CHANGELOG.md@v1.14.4",
	}, {
		What: "a drive on slow storage starves all other devices", Remedy: "limit its rate, or use 1.12.1 or later",
		Fixed: "1.12.1", Source: "CHANGELOG.md@v1.12.1",
	}, {
		What: "a restored guest's network device loses its offloads, and connections with them", Remedy: "use 1.9.1 or later",
		Since: "1.9.0", Fixed: "1.9.1", Source: "CHANGELOG.md@v1.9.1",
	}, {
		What: "a guest that had connections on vsock when the snapshot was taken waits on them for ever", Remedy: "use 1.10.0 or later",
		Fixed: "1.10.0", Source: "CHANGELOG.md@v1.10.0",
	}, {
		What: "there is no ACPI: kernels without CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES, such as Debian's, find no device", Remedy: "use 1.8.0 or later",
		Fixed: "1.8.0", Source: "CHANGELOG.md@v1.8.0",
	}, {
		What: "PATCH /machine-config asks for mem_size_mib and track_dirty_pages each time", Remedy: "give both, or use 1.11.0 or later",
		Fixed: "1.11.0", Source: "CHANGELOG.md@v1.11.0",
	}, {
		What: "a guest can make the VMM take memory without bound through the entropy device", Remedy: "limit the VMM's memory by its cgroup, or use 1.14.4, 1.15.1 or later",
		Fixed: "1.14.4 1.15.1", Source: "CHANGELOG.md@v1.14.4",
	},
}

// Known returns what is known to be wrong with v.
func (v Version) Known() []Problem {
	var known []Problem
	for _, p := range problems {
		if v.within("", p.Since, p.Fixed) == nil {
			known = append(known, p)
		}
	}
	return known
}
