//go:build linux

package fakevmm

import (
	"strings"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

// A shape is how the sources read a field: "u8" to "u64" and "usize", "bool", "string", "path", "ip", "mac", "level", "capability", the variants of an enumeration as "A|B", the name of a type, "struct X" for one that is not looked into, or "any".
// "[]" before it is a list, "?" one that may be null, and "=" one that has a default even where it is read out of a list.
type shape = string

// shapes are those of 1.12.1 by type and field (src/vmm/src/vmm_config and src/firecracker/src/api_server/request @v1.12.1). What other versions have besides is of any shape.
var shapes = map[string]map[string]shape{
	"Balloon":            {"amount_mib": "u32", "deflate_on_oom": "bool", "stats_polling_interval_s": "=u16"},
	"BalloonUpdate":      {"amount_mib": "u32"},
	"BalloonStatsUpdate": {"stats_polling_interval_s": "u16"},
	"BootSource":         {"kernel_image_path": "string", "initrd_path": "?string", "boot_args": "?string"},
	"CpuConfig":          {"kvm_capabilities": "=[]capability", "cpuid_modifiers": "=[]struct CpuidLeafModifier", "msr_modifiers": "=[]struct RegisterModifier"},
	"Drive": {
		"drive_id": "string", "partuuid": "?string", "is_root_device": "bool", "cache_type": "=Unsafe|Writeback", "is_read_only": "?bool", "path_on_host": "?string",
		"rate_limiter": "?RateLimiter", "io_engine": "?Async|Sync", "socket": "?string",
	},
	"EntropyDevice": {"rate_limiter": "?RateLimiter"},
	"FullVmConfiguration": {
		"balloon": "?Balloon", "drives": "[]Drive", "boot-source": "BootSource", "cpu-config": "?path", "logger": "?Logger", "machine-config": "?MachineConfiguration", "metrics": "?Metrics",
		"mmds-config": "?MmdsConfig", "network-interfaces": "=[]NetworkInterface", "vsock": "?Vsock", "entropy": "?EntropyDevice", "pmem": "=[]Pmem", "memory-hotplug": "?MemoryHotplugConfig",
	},
	"InstanceActionInfo": {"action_type": "FlushMetrics|InstanceStart|SendCtrlAltDel"},
	"Logger":             {"log_path": "?path", "level": "?level", "show_level": "?bool", "show_log_origin": "?bool", "module": "?string"},
	"MachineConfiguration": {
		"vcpu_count": "u8", "mem_size_mib": "usize", "smt": "=bool", "cpu_template": "=?C3|T2|T2S|None|T2CL|T2A", "track_dirty_pages": "=bool", "huge_pages": "=None|2M",
	},
	patchedMachine: {
		"vcpu_count": "=?u8", "mem_size_mib": "=?usize", "smt": "=?bool", "cpu_template": "=?C3|T2|T2S|None|T2CL|T2A", "track_dirty_pages": "=?bool", "huge_pages": "=?None|2M",
	},
	"MemoryBackend":           {"backend_path": "path", "backend_type": "File|Uffd"},
	"Metrics":                 {"metrics_path": "path"},
	"MmdsConfig":              {"version": "=V1|V2", "network_interfaces": "[]string", "ipv4_address": "?ip"},
	"NetworkInterface":        {"iface_id": "string", "host_dev_name": "string", "guest_mac": "?mac", "rx_rate_limiter": "?RateLimiter", "tx_rate_limiter": "?RateLimiter"},
	"NetworkOverride":         {"iface_id": "string", "host_dev_name": "string"},
	"PartialDrive":            {"drive_id": "string", "path_on_host": "?string", "rate_limiter": "?RateLimiter"},
	"PartialNetworkInterface": {"iface_id": "string", "rx_rate_limiter": "?RateLimiter", "tx_rate_limiter": "?RateLimiter"},
	"RateLimiter":             {"bandwidth": "?TokenBucket", "ops": "?TokenBucket"},
	"SnapshotCreateParams":    {"snapshot_type": "=Diff|Full", "snapshot_path": "path", "mem_file_path": "path"},
	"SnapshotLoadParams": {
		"snapshot_path": "path", "mem_file_path": "?path", "mem_backend": "?MemoryBackend", "enable_diff_snapshots": "=bool", "resume_vm": "=bool", "network_overrides": "=[]NetworkOverride",
	},
	"TokenBucket": {"size": "u64", "one_time_burst": "?u64", "refill_time": "u64"},
	"Vm":          {"state": "Paused|Resumed"},
	"Vsock":       {"vsock_id": "=?string", "guest_cid": "u32", "uds_path": "string"},
}

// patchedMachine is the type of PATCH /machine-config. The swagger has it as that of PUT, of which nothing is required then.
const patchedMachine = "MachineConfigurationUpdate"

// names are what the sources call the types: their refusals say it.
var names = map[string]string{
	"Balloon": "BalloonDeviceConfig", "BalloonUpdate": "BalloonUpdateConfig", "BalloonStatsUpdate": "BalloonUpdateStatsConfig", "BootSource": "BootSourceConfig", "CpuConfig": "CustomCpuTemplate",
	"Drive": "BlockDeviceConfig", "EntropyDevice": "EntropyDeviceConfig", "FullVmConfiguration": "VmmConfig", "InstanceActionInfo": "ActionBody", "Logger": "LoggerConfig",
	"MachineConfiguration": "MachineConfig", patchedMachine: "MachineConfigUpdate", "MemoryBackend": "MemBackendConfig", "Metrics": "MetricsConfig", "NetworkInterface": "NetworkInterfaceConfig",
	"PartialDrive": "BlockDeviceUpdateConfig", "PartialNetworkInterface": "NetworkInterfaceUpdateConfig", "RateLimiter": "RateLimiterConfig", "SnapshotCreateParams": "CreateSnapshotParams",
	"SnapshotLoadParams": "LoadSnapshotConfig", "TokenBucket": "TokenBucketConfig", "Vsock": "VsockDeviceConfig",
}

// lax are the types that ignore fields that they do not know.
var lax = []string{"Metrics", "FullVmConfiguration", "TokenBucket", "NetworkOverride"}

// shape returns how a field is read.
func (r *Release) shape(name, field string) shape {
	if field == "cpu-config" && r.can(api.InlineCPUTemplate) {
		return "any"
	}
	if s := shapes[name][field]; s != "" {
		return s
	}
	return "any"
}

// article is a struct as its refusals name it.
func article(name string) string {
	if called := names[name]; called != "" {
		name = called
	}
	return "struct " + name
}

// scalars are what is expected, in words, where a value is of another kind.
var scalars = map[shape]string{
	"bool": "a boolean", "string": "a string", "path": "path string", "ip": "IPv4 address", "mac": "a string", "level": "a string", "capability": "a string",
	"u8": "u8", "u16": "u16", "u32": "u32", "u64": "u64", "usize": "usize",
}

// variants returns those of an enumeration.
func variants(s shape) []string { return strings.Split(s, "|") }
