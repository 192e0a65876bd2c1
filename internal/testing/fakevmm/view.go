//go:build linux

package fakevmm

import (
	"maps"
	"strings"
)

// machineConfig returns what is set over the defaults.
func (v *VMM) machineConfig() map[string]any {
	m := map[string]any{"vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"}
	for key, value := range v.set["/machine-config"] {
		m[key] = value
	}
	return m
}

// config returns the whole configuration, as GET /vm/config does.
func (v *VMM) config() map[string]any {
	c := map[string]any{"machine-config": v.machineConfig(), "drives": v.all("/drives/", map[string]any{"cache_type": "Unsafe", "io_engine": "Sync"}), "network-interfaces": v.all("/network-interfaces/", nil)}
	have, _ := v.Release.fields("FullVmConfiguration")
	for _, section := range have {
		if _, ok := c[section]; ok {
			continue
		}
		c[section] = nil
		if set := v.set["/"+section]; set != nil {
			c[section] = set
		}
	}
	if set := v.set["/mmds/config"]; set != nil {
		c["mmds-config"] = set
	}
	if v.set["/boot-source"] == nil {
		c["boot-source"] = map[string]string{"kernel_image_path": ""}
	}
	return c
}

// all returns the resources below a path over defaults.
func (v *VMM) all(prefix string, defaults map[string]any) []any {
	list := []any{}
	for _, path := range v.paths {
		if !strings.HasPrefix(path, prefix) {
			continue
		}
		one := maps.Clone(defaults)
		if one == nil {
			one = map[string]any{}
		}
		for key, value := range v.set[path] {
			one[key] = value
		}
		list = append(list, one)
	}
	return list
}
