//go:build linux

package fakevmm

import (
	"encoding/json"
	"os"
	"strings"
	"unicode/utf8"
)

// fileSections are the sections of a configuration file in the order in which they are taken, whatever the file's: what a call would do as well, and what the real one calls a refusal
// (src/vmm/src/resources.rs@v1.12.1 and, for the newest, v1.16.1).
var fileSections = []struct{ name, key, kind string }{
	{"logger", "PUT /logger", "Logger"},
	{"metrics", "PUT /metrics", "Metrics"},
	{"machine-config", "PUT /machine-config", "MachineConfig"},
	{"cpu-config", "PUT /cpu-config", "InvalidJson"},
	{"boot-source", "PUT /boot-source", "BootSource"},
	{"drives", "PUT /drives/{drive_id}", "BlockDevice"},
	{"network-interfaces", "PUT /network-interfaces/{iface_id}", "NetDevice"},
	{"vsock", "PUT /vsock", "VsockDevice"},
	{"balloon", "PUT /balloon", "BalloonDevice"},
	{"mmds-config", "PUT /mmds/config", "MmdsConfig"},
	{"entropy", "PUT /entropy", "EntropyDevice"},
	{"pmem", "PUT /pmem/{id}", "PmemConfig"},
	{"memory-hotplug", "PUT /hotplug/memory", "MemoryHotplugConfig"},
}

// laxMachine is what VMMs of [Faults.Lax] run with.
const laxMachine = `{"vcpu_count":32,"mem_size_mib":128}`

// configure takes a configuration file and starts the machine. Its errors are as those of the real one down to the last word.
func (v *VMM) configure(file []byte, lax bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	sections, err := v.Release.parseBody("FullVmConfiguration", file)
	if err != nil {
		return variant{"ParseFromJson", variant{"InvalidJson", err}}
	}
	if lax {
		sections["machine-config"] = json.RawMessage(laxMachine)
	}
	for _, s := range fileSections {
		raw := sections[s.name]
		if raw == nil || !v.Release.knows(s.key) { // not there, null, or of another version
			continue
		}
		if s.name == "cpu-config" && raw[0] == '"' {
			if raw, err = v.readTemplate(text(raw)); err != nil {
				return variant{"ParseFromJson", variant{"File", err}}
			}
		}
		if err := v.section(s.key, raw); err != nil {
			return variant{"ParseFromJson", variant{s.kind, err}}
		}
	}
	if err := v.boot(); err != nil {
		return variant{"StartMicroVM", err}
	}
	return nil
}

// section does what calls would with the same bodies, but that ids may have any characters.
func (v *VMM) section(key string, raw json.RawMessage) error {
	path, id, several := strings.Cut(key[strings.Index(key, "/"):], "{")
	bodies := []json.RawMessage{raw}
	if several {
		if err := json.Unmarshal(raw, &bodies); err != nil {
			return err
		}
	}
	for _, body := range bodies {
		values, err := v.Release.parseBody(v.Release.Routes[key].Body, body)
		if err != nil {
			return err
		}
		r := request{key: key, path: path, values: values}
		if several {
			r.path += text(values[strings.TrimSuffix(id, "}")])
		}
		if _, err := v.act(r); err != nil {
			return err
		}
	}
	return nil
}

// readTemplate reads a CPU template's file, as a file of text.
func (v *VMM) readTemplate(path string) (json.RawMessage, error) {
	raw, err := os.ReadFile(v.at(path))
	if err != nil {
		return nil, osError(err)
	}
	if !utf8.Valid(raw) {
		return nil, errNoText
	}
	return raw, nil
}
