//go:build linux

package fakevmm

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

// Release is what a version of Firecracker has.
type Release struct {
	Version string              `json:"version"`
	Commit  string              `json:"commit"`
	Routes  map[string]Route    `json:"routes"` // By "PUT /drives/{drive_id}".
	Types   map[string][]string `json:"types"`  // Fields by name of the type: "drive_id*" is required, what follows a colon is a type.
}

// Route is what a request carries and is answered with: names of types.
type Route struct {
	Body   string `json:"body"`
	Answer string `json:"answer"`
}

//go:embed versions.json
var versions []byte

// Releases returns all releases that are known, oldest first: the newest of each line from 1.7 to 1.16.
var Releases = sync.OnceValue(func() []Release {
	var all []Release
	if err := json.Unmarshal(versions, &all); err != nil {
		panic(err) // the file is the program's own
	}
	for i := range all {
		all[i].correct()
	}
	return all
})

// correct mends what the swagger of a tag says otherwise than its sources.
func (r *Release) correct() {
	v, err := api.ParseVersion(r.Version)
	if err != nil {
		panic(err)
	}
	for i, field := range r.Types["MmdsConfig"] { // misspelled; src/vmm/src/vmm_config/mmds.rs@v1.13.2
		r.Types["MmdsConfig"][i] = strings.Replace(field, "imds_comat", "imds_compat", 1)
	}
	for _, section := range []string{"entropy", "cpu-config"} { // forgotten before 1.10; src/vmm/src/resources.rs@v1.7.0
		if all, _ := r.fields("FullVmConfiguration"); !slices.Contains(all, section) {
			r.Types["FullVmConfiguration"] = append(r.Types["FullVmConfiguration"], section)
		}
	}
	for i, section := range r.Types["FullVmConfiguration"] { // said nowhere; src/vmm/src/resources.rs@v1.7.0
		if name, of, ok := strings.Cut(section, ":"); ok && (name == "drives" || name == "boot-source") {
			r.Types["FullVmConfiguration"][i] = name + "*:" + of
		}
	}
	r.Types["CpuConfig"] = []string{"kvm_capabilities", "cpuid_modifiers", "msr_modifiers"} // on x86_64; src/vmm/src/cpu_config/x86_64/custom_cpu_template.rs@v1.7.0
	r.Types[patchedMachine] = nil                                                           // src/vmm/src/vmm_config/machine_config.rs@v1.7.0
	for _, field := range r.Types["MachineConfiguration"] {
		r.Types[patchedMachine] = append(r.Types[patchedMachine], strings.ReplaceAll(field, "*", ""))
	}
	r.Routes["PATCH /machine-config"] = Route{Body: patchedMachine}
	if v.Supports(api.DeviceHotplug) == nil { // src/firecracker/src/api_server/parsed_request.rs@v1.16.1
		for _, path := range []string{"/drives/{drive_id}", "/pmem/{id}", "/network-interfaces/{iface_id}"} {
			r.Routes["DELETE "+path] = Route{}
		}
	}
}

// Find returns the release of a version: of its line, since patches change no routes or fields but those that a table names.
func Find(version string) (Release, error) {
	v, err := api.ParseVersion(version)
	if err != nil {
		return Release{}, err
	}
	for _, r := range Releases() {
		known, err := api.ParseVersion(r.Version)
		if err != nil {
			return Release{}, err
		}
		if known.Major == v.Major && known.Minor == v.Minor {
			r.Version = v.String()
			return r, nil
		}
	}
	return Release{}, fmt.Errorf("version %s: no release of this line is known", version)
}

// can says whether the version has a capability.
func (r *Release) can(c api.Capability) bool {
	v, err := api.ParseVersion(r.Version)
	return err == nil && v.Supports(c) == nil
}

// outputFlags are how the files of the log and the metrics are opened.
func (r *Release) outputFlags() int {
	if r.can(api.LogFilesMade) {
		return os.O_RDWR | os.O_CREATE
	}
	return os.O_RDWR
}

// fields returns the fields of a type in the order in which its refusals list them, without their marks, and which of them are required.
func (r *Release) fields(name string) (all, required []string) {
	have := map[string]bool{} // to whether it is required
	for _, field := range r.Types[name] {
		field, _, _ = strings.Cut(field, ":")
		bare, star := strings.CutSuffix(field, "*")
		have[bare] = star
	}
	for _, field := range append(slices.Clone(order[name]), sortedKeys(have)...) {
		star, ok := have[field]
		if !ok {
			continue
		}
		delete(have, field)
		all = append(all, field)
		if star {
			required = append(required, field)
		}
	}
	return all, required
}

func sortedKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// order is how the sources list the fields that the real one names in its refusals (src/vmm/src/vmm_config@v1.12.1). What is newer follows by the alphabet.
var order = map[string][]string{
	"MachineConfiguration":    {"vcpu_count", "mem_size_mib", "smt", "cpu_template", "track_dirty_pages", "huge_pages"},
	patchedMachine:            {"vcpu_count", "mem_size_mib", "smt", "cpu_template", "track_dirty_pages", "huge_pages"},
	"BootSource":              {"kernel_image_path", "initrd_path", "boot_args"},
	"CpuConfig":               {"kvm_capabilities", "cpuid_modifiers", "msr_modifiers"},
	"Drive":                   {"drive_id", "partuuid", "is_root_device", "cache_type", "is_read_only", "path_on_host", "rate_limiter", "io_engine", "socket"},
	"PartialDrive":            {"drive_id", "path_on_host", "rate_limiter"},
	"NetworkInterface":        {"iface_id", "host_dev_name", "guest_mac", "rx_rate_limiter", "tx_rate_limiter"},
	"PartialNetworkInterface": {"iface_id", "rx_rate_limiter", "tx_rate_limiter"},
	"Vsock":                   {"vsock_id", "guest_cid", "uds_path"},
	"Balloon":                 {"amount_mib", "deflate_on_oom", "stats_polling_interval_s"},
	"MmdsConfig":              {"version", "network_interfaces", "ipv4_address"},
	"Logger":                  {"log_path", "level", "show_level", "show_log_origin", "module"},
	"FullVmConfiguration":     {"balloon", "drives", "boot-source", "cpu-config", "logger", "machine-config", "metrics", "mmds-config", "network-interfaces", "vsock", "entropy", "pmem", "memory-hotplug"},
	"MemoryBackend":           {"backend_path", "backend_type"},
	"NetworkOverride":         {"iface_id", "host_dev_name"},
	"RateLimiter":             {"bandwidth", "ops"},
	"TokenBucket":             {"size", "one_time_burst", "refill_time"},
	"SnapshotCreateParams":    {"snapshot_type", "snapshot_path", "mem_file_path"},
	"SnapshotLoadParams":      {"snapshot_path", "mem_file_path", "mem_backend", "enable_diff_snapshots", "resume_vm", "network_overrides"},
}
