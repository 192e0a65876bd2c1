package api

import (
	"bytes"
	"encoding/json"
)

// ConfigFile is what --config-file reads, and what GET /vm/config answers. As a file it starts the VM too. It can't say the console of [Serial], the data of MMDS,
// or what a snapshot holds. Sections that a version does not know it ignores silently, unknown fields within a section it refuses: call [Check] before.
//
// As an answer it has what was asked with the defaults filled in. It never has a CPU template, log or metrics, of any version.
type ConfigFile struct {
	BootSource        BootSource         `json:"boot-source"`
	Drives            []Drive            `json:"drives"` // Required, if empty: not nil.
	MachineConfig     MachineConfig      `json:"machine-config"`
	CPUConfig         *CPUTemplate       `json:"cpu-config,omitempty"`
	Balloon           *Balloon           `json:"balloon,omitempty"`
	NetworkInterfaces []NetworkInterface `json:"network-interfaces,omitempty"`
	Vsock             *Vsock             `json:"vsock,omitempty"`
	Entropy           *Entropy           `json:"entropy,omitempty"`
	MMDSConfig        *MMDSConfig        `json:"mmds-config,omitempty"`
	Logger            *Logger            `json:"logger,omitempty"`
	Metrics           *Metrics           `json:"metrics,omitempty"`
	Pmem              []Pmem             `json:"pmem,omitempty" since:"1.14.0"`
	MemoryHotplug     *MemoryHotplug     `json:"memory-hotplug,omitempty" since:"1.14.0"`
}

// CPUTemplate is a [CPUConfig] in a configuration file: one of its fields is set.
type CPUTemplate struct {
	Path   string     `json:"-"`                // Of a file with a CPUConfig in JSON.
	Config *CPUConfig `json:"-" since:"1.13.0"` // The template itself.
}

// MarshalJSON writes the template, or its path.
func (t CPUTemplate) MarshalJSON() ([]byte, error) {
	if t.Config != nil {
		return json.Marshal(t.Config)
	}
	return json.Marshal(t.Path)
}

// UnmarshalJSON reads a template, or its path.
func (t *CPUTemplate) UnmarshalJSON(text []byte) error {
	*t = CPUTemplate{}
	if bytes.HasPrefix(text, []byte(`"`)) {
		return json.Unmarshal(text, &t.Path)
	}
	return json.Unmarshal(text, &t.Config)
}
