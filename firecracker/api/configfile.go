package api

import "encoding/json"

// ConfigFile is what --config-file reads. It starts the VM too. It can't say the console of [Serial], the data of MMDS, or what a snapshot holds. Sections that a
// version does not know it ignores silently: call [Check] before.
type ConfigFile struct {
	BootSource        BootSource         `json:"boot-source"`
	Drives            []Drive            `json:"drives"` // Required, if empty.
	MachineConfig     MachineConfig      `json:"machine-config"`
	CPUConfig         json.RawMessage    `json:"cpu-config,omitempty"` // The path of a template; since 1.13 also a CPUConfig itself.
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
