//go:build linux

package fakevmm

import (
	"encoding/json"
	"slices"
	"strings"
)

// put sets a resource. The order in which drives and NICs are told, and so found by the guest, is that of the sources (src/vmm/src/vmm_config/drive.rs and net.rs @v1.12.1).
func (v *VMM) put(path string, values map[string]json.RawMessage) {
	section, _, several := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	known := v.set[path] != nil
	v.set[path] = values
	if path == "/mmds/config" {
		v.forward(values)
	}
	if !several {
		return
	}
	order := v.orders[section]
	i := slices.Index(order, path)
	switch root := boolean(values["is_root_device"]); {
	case section == "network-interfaces": // made anew: the last one takes its place, and it forwards no metadata any more
		if known {
			last := len(order) - 1
			order[i] = order[last]
			order = order[:last]
			v.forwarding = slices.DeleteFunc(v.forwarding, func(other string) bool { return other == path })
		}
		order = append(order, path)
	case !known && root:
		order = slices.Insert(order, 0, path)
	case !known:
		order = append(order, path)
	case root:
		order[0], order[i] = order[i], order[0]
	}
	v.orders[section] = order
}

// forward lets NICs forward metadata, and those alone.
func (v *VMM) forward(values map[string]json.RawMessage) {
	v.forwarding = nil
	var interfaces []string
	json.Unmarshal(values["network_interfaces"], &interfaces)
	for _, id := range interfaces {
		v.forwarding = append(v.forwarding, "/network-interfaces/"+id)
	}
}

// patch changes a device of a started machine: a path, and of a rate limiter what is named.
func (v *VMM) patch(path string, values map[string]json.RawMessage) {
	for field, value := range values {
		if strings.HasSuffix(field, "rate_limiter") {
			value = patched(v.set[path][field], value)
		}
		v.set[path][field] = value
	}
}

func patched(old, changes json.RawMessage) json.RawMessage {
	var buckets, changed map[string]json.RawMessage
	json.Unmarshal(old, &buckets)
	json.Unmarshal(changes, &changed)
	if buckets == nil {
		buckets = map[string]json.RawMessage{}
	}
	for name, bucket := range changed {
		if string(bucket) != "null" {
			buckets[name] = bucket
		}
	}
	text, err := json.Marshal(buckets)
	if err != nil {
		return old
	}
	return text
}
