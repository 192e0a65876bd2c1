//go:build linux

package fakevmm

import (
	"encoding/json"
	"slices"
	"strings"
)

// defaults are what fields that nobody has set are told as, by type. The others are null.
var defaults = map[string]map[string]any{
	"Drive":                {"cache_type": "Unsafe", "io_engine": "Sync", "is_read_only": false},
	"MachineConfiguration": {"vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"},
	"Balloon":              {"stats_polling_interval_s": 0},
	"BootSource":           {"kernel_image_path": ""},
	"MmdsConfig":           {"version": "V1"},
}

// untold are fields that are not told unless something is set.
var untold = []string{"MachineConfiguration.cpu_template", "Vsock.vsock_id"}

// describe returns a resource as GET does: all fields of its type.
func (v *VMM) describe(name string, set map[string]json.RawMessage) map[string]any {
	told := map[string]any{}
	all, _ := v.Release.fields(name)
	for _, field := range all {
		raw := set[field]
		switch {
		case raw == nil && (shapes[name][field] == "" || slices.Contains(untold, name+"."+field)):
		case raw == nil:
			told[field] = defaults[name][field]
		case shapes[name][field] == "?RateLimiter":
			told[field] = limiter(raw)
		case shapes[name][field] == "?mac":
			told[field] = strings.ToLower(text(raw))
		case field == "vsock_id":
		default:
			told[field] = raw
		}
	}
	if told["cpu_template"] != nil && text(set["cpu_template"]) == "None" {
		delete(told, "cpu_template")
	}
	return told
}

// limiter tells a rate limiter: one that limits nothing is none.
func limiter(raw json.RawMessage) any {
	var set map[string]*struct {
		Size   uint64  `json:"size"`
		Burst  *uint64 `json:"one_time_burst"`
		Refill uint64  `json:"refill_time"`
	}
	json.Unmarshal(raw, &set)
	told := map[string]any{"bandwidth": nil, "ops": nil}
	for name, bucket := range set {
		if bucket == nil || bucket.Size == 0 || bucket.Refill == 0 {
			delete(set, name)
			continue
		}
		if bucket.Burst != nil && *bucket.Burst == 0 {
			bucket.Burst = nil
		}
		told[name] = bucket
	}
	if len(set) == 0 {
		return nil
	}
	return told
}

// machineConfig returns what is set over the defaults.
func (v *VMM) machineConfig() map[string]any {
	return v.describe("MachineConfiguration", v.set["/machine-config"])
}

// config returns the whole configuration, as GET /vm/config does. Of the log, the metrics and a template it knows nothing any more.
func (v *VMM) config() map[string]any {
	c := map[string]any{}
	sections, _ := v.Release.fields("FullVmConfiguration")
	for _, section := range sections {
		set := v.set["/"+section]
		switch section {
		case "drives", "network-interfaces":
			c[section] = v.all(section)
		case "mmds-config":
			c[section] = v.metadataConfig()
		case "logger", "metrics", "cpu-config":
			c[section] = nil
		case "boot-source", "machine-config":
			c[section] = v.describe(sectionTypes[section], set)
		default:
			c[section] = nil
			if set != nil {
				c[section] = v.describe(sectionTypes[section], set)
			}
		}
	}
	return c
}

// sectionTypes are the types of what configurations have as sections.
var sectionTypes = map[string]string{
	"drives": "Drive", "network-interfaces": "NetworkInterface", "boot-source": "BootSource", "machine-config": "MachineConfiguration", "vsock": "Vsock", "balloon": "Balloon", "entropy": "EntropyDevice",
	"memory-hotplug": "MemoryHotplugConfig",
}

// all returns the resources of a section.
func (v *VMM) all(section string) []any {
	list := []any{}
	for _, path := range v.orders[section] {
		list = append(list, v.describe(sectionTypes[section], v.set[path]))
	}
	return list
}

// metadataConfig is put together from what NICs forward.
func (v *VMM) metadataConfig() any {
	forwarding := []string{}
	for _, path := range v.orders["network-interfaces"] {
		if slices.Contains(v.forwarding, path) {
			forwarding = append(forwarding, strings.TrimPrefix(path, "/network-interfaces/"))
		}
	}
	if len(forwarding) == 0 {
		return nil
	}
	told := v.describe("MmdsConfig", v.set["/mmds/config"])
	told["network_interfaces"] = forwarding
	if told["ipv4_address"] == nil {
		told["ipv4_address"] = "169.254.169.254"
	}
	return told
}
