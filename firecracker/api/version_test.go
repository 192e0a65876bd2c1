package api

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"1.12.1": {1, 12, 1}, "v1.12.1": {1, 12, 1}, "1.13": {1, 13, 0}, "1.13.0-dev": {1, 13, 0}, "Firecracker v1.16.1\n\nSupported snapshot data format versions: v8.0.0": {1, 16, 1},
	} {
		if got, err := ParseVersion(text); err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "1.2.3.4", "a.b.c", "1.-2.3", "1.99999999.0", "Jailer"} {
		if got, err := ParseVersion(text); err == nil {
			t.Errorf("ParseVersion(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("Firecracker v1.12.1\n")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVersion(text)
		if err != nil {
			return
		}
		if again, err := ParseVersion(v.String()); err != nil || again != v {
			t.Errorf("%q is %v, which reads as %v, %v", text, v, again, err)
		}
	})
}

func TestSinceSeveralLines(t *testing.T) {
	for text, want := range map[string]bool{"1.14.3": false, "1.14.4": true, "1.14.9": true, "1.15.0": false, "1.15.1": true, "1.16.0": true, "2.0.0": true, "1.7.0": false} {
		v, err := ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		err = v.Supports(ClockRealtime)
		if (err == nil) != want {
			t.Errorf("%s supports it: %v, want %v", text, err, want)
		}
		lacks := (*UnsupportedError)(nil)
		if err != nil && (!errors.As(err, &lacks) || !strings.Contains(err.Error(), "1.14.4, or 1.15.1")) {
			t.Errorf("error does not name what is needed: %v", err)
		}
	}
}

// What the table says of a field's capability, and the field's own tag, are the same.
func TestTagsAgreeWithCapabilities(t *testing.T) {
	for _, row := range []struct {
		capability Capability
		value      any
	}{
		{NetworkOverrides, SnapshotLoad{NetworkOverrides: []NetworkOverride{{}}}},
		{InlineCPUTemplate, ConfigFile{CPUConfig: &CPUTemplate{Config: &CPUConfig{}}}},
		{SerialPath, Serial{}},
		{PmemDevices, Pmem{}},
		{PmemDevices, ConfigFile{Pmem: []Pmem{{}}}},
		{MemoryHotplugging, MemoryHotplug{}},
		{MemoryHotplugging, MemoryHotplugPatch{}},
		{MemoryHotplugging, MemoryHotplugStatus{}},
		{MemoryHotplugging, ConfigFile{MemoryHotplug: &MemoryHotplug{}}},
		{FreePageHinting, Balloon{FreePageHinting: true}},
		{FreePageHinting, Balloon{FreePageReporting: true}},
		{FreePageHinting, BalloonHintingStart{}},
		{FreePageHinting, BalloonHintingStatus{}},
		{ClockRealtime, SnapshotLoad{ClockRealtime: true}},
		{VsockOverrides, SnapshotLoad{VsockOverride: &VsockOverride{}}},
		{SerialRateLimit, Serial{RateLimiter: &TokenBucket{}}},
		{InterfaceMTU, NetworkInterface{MTU: 1400}},
	} {
		for minor := range 18 {
			for patch := range 6 {
				v := Version{1, minor, patch}
				if s, c := v.Supports(row.capability), Check(v, row.value); (s == nil) != (c == nil) {
					t.Errorf("%s: %s: Supports says %v, Check(%T) %v", v, row.capability.Name, s, row.value, c)
				}
			}
		}
	}
}

func TestCheckFindsFields(t *testing.T) {
	old, young := Version{1, 12, 1}, Version{1, 16, 1}
	for want, value := range map[string]any{
		"SnapshotLoad.track_dirty_pages":       SnapshotLoad{TrackDirtyPages: true},
		"ConfigFile.network-interfaces.mtu":    ConfigFile{NetworkInterfaces: []NetworkInterface{{IfaceID: "eth0"}, {MTU: 1400}}},
		"ConfigFile.balloon.free_page_hinting": ConfigFile{Balloon: &Balloon{FreePageHinting: true}},
		"ConfigFile.memory-hotplug":            ConfigFile{MemoryHotplug: &MemoryHotplug{TotalSizeMiB: 1024}},
		"ConfigFile.pmem":                      ConfigFile{Pmem: []Pmem{{ID: "x"}}},
		"Serial":                               Serial{SerialOutPath: "x"},
		"PmemPatch":                            PmemPatch{ID: "x"},
		"ConfigFile.mmds-config.imds_compat":   ConfigFile{MMDSConfig: &MMDSConfig{IMDSCompat: true}},
		"SnapshotLoad.vsock_override":          SnapshotLoad{VsockOverride: &VsockOverride{UDSPath: "x"}},
		"ConfigFile.cpu-config":                &ConfigFile{CPUConfig: &CPUTemplate{Config: &CPUConfig{}}},
	} {
		err := Check(old, value)
		lacks := (*UnsupportedError)(nil)
		if !errors.As(err, &lacks) || lacks.What != want || lacks.Version != old {
			t.Errorf("Check(%v, %+v) = %v, want %s", old, value, err, want)
		}
		if err := Check(young, value); err != nil {
			t.Errorf("Check(%v, %+v) = %v", young, value, err)
		}
	}
	for _, value := range []any{
		ConfigFile{Entropy: &Entropy{}, Vsock: &Vsock{GuestCID: 3}, Balloon: &Balloon{AmountMiB: 1}, CPUConfig: &CPUTemplate{Path: "x"}},
		SnapshotLoad{NetworkOverrides: []NetworkOverride{{IfaceID: "eth0"}}}, map[string]any{"mtu": 1400}, (*Serial)(nil), nil,
	} {
		if err := Check(old, value); err != nil {
			t.Errorf("what it has: Check(%v, %+v) = %v", old, value, err)
		}
	}
}

func TestUntil(t *testing.T) {
	type resource struct {
		Gone string `json:"gone" since:"1.8.0" until:"1.13.2 1.14.1"`
	}
	capability := Capability{Name: "resource.gone", Since: "1.8.0", Until: "1.13.2 1.14.1"}
	for text, want := range map[string]bool{"1.7.0": false, "1.8.0": true, "1.13.1": true, "1.13.2": false, "1.14.0": true, "1.14.1": false, "1.15.0": false} {
		v, err := ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{Check(v, resource{Gone: "x"}), v.Supports(capability)} {
			lacks := (*UnsupportedError)(nil)
			if (err == nil) != want || err != nil && (!errors.As(err, &lacks) || lacks.Removed != (text != "1.7.0")) {
				t.Errorf("%s: %v, want supported: %v", text, err, want)
			}
		}
		if err := Check(v, resource{}); err != nil {
			t.Errorf("%s: a field that is not set: %v", text, err)
		}
	}
}

// Every release that a table names can be read, is one that exists in the table's own terms, and every row names where it was read.
func TestTablesAreSound(t *testing.T) {
	for _, p := range problems {
		releases(p.Since)
		releases(p.Fixed)
		if p.What == "" || p.Remedy == "" || !strings.Contains(p.Source, "@v1.") {
			t.Errorf("row %+v is not whole", p)
		}
	}
	for _, c := range []Capability{
		ACPI, GenerationID, HugePagesBalloon, PVH, CtrlAltDelACPI, NetworkOverrides, DiffWithoutTracking, InlineCPUTemplate, PCI, SerialPath, PmemDevices, MemoryHotplugging, FreePageHinting,
		LogFilesMade, ClockRealtime, VMClock, VsockOverrides, SerialRateLimit, DeviceHotplug, InterfaceMTU,
	} {
		if len(releases(c.Since)) == 0 || c.Name == "" || !strings.Contains(c.Source, "@v1.") {
			t.Errorf("row %+v is not whole", c)
		}
	}
	for _, since := range resourceSince {
		releases(since)
	}
	for _, resource := range resources() {
		for field := range resource.Fields() {
			releases(field.Tag.Get("since"))
		}
	}
}

func TestKnown(t *testing.T) {
	has := func(text, what string) bool {
		v, err := ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range v.Known() {
			if strings.Contains(p.What, what) {
				return true
			}
		}
		return false
	}
	for _, row := range []struct {
		what     string
		bad, not []string
	}{
		{"time out after a restore", []string{"1.16.0"}, []string{"1.12.1", "1.15.1", "1.16.1"}},
		{"corrupt memory in diff", []string{"1.14.0", "1.14.1"}, []string{"1.7.0", "1.12.1", "1.13.2", "1.14.2", "1.15.0", "1.16.1"}},
		{"pause and resume", []string{"1.16.0", "1.16.1"}, []string{"1.12.1", "1.15.1"}},
		{"linked into its jail", []string{"1.12.1", "1.13.1", "1.14.0"}, []string{"1.13.2", "1.14.1", "1.15.0"}},
		{"FIFO without a reader", []string{"1.14.0", "1.14.1"}, []string{"1.12.1", "1.14.2"}},
		{"swapped out", []string{"1.13.0", "1.16.1"}, []string{"1.12.1"}},
	} {
		for _, v := range row.bad {
			if !has(v, row.what) {
				t.Errorf("%s: nothing is known of %q", v, row.what)
			}
		}
		for _, v := range row.not {
			if has(v, row.what) {
				t.Errorf("%s: is said to have %q", v, row.what)
			}
		}
	}
}

// resources are all types that go over the wire.
func resources() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[MachineConfig](), reflect.TypeFor[MachineConfigPatch](), reflect.TypeFor[BootSource](), reflect.TypeFor[CPUConfig](), reflect.TypeFor[Drive](), reflect.TypeFor[DrivePatch](),
		reflect.TypeFor[Pmem](), reflect.TypeFor[PmemPatch](), reflect.TypeFor[NetworkInterface](), reflect.TypeFor[NetworkInterfacePatch](), reflect.TypeFor[Vsock](), reflect.TypeFor[Balloon](),
		reflect.TypeFor[BalloonPatch](), reflect.TypeFor[BalloonStats](), reflect.TypeFor[BalloonStatsPatch](), reflect.TypeFor[BalloonHintingStart](), reflect.TypeFor[BalloonHintingStatus](),
		reflect.TypeFor[MMDSConfig](), reflect.TypeFor[Logger](), reflect.TypeFor[Metrics](), reflect.TypeFor[Serial](), reflect.TypeFor[Entropy](), reflect.TypeFor[MemoryHotplug](),
		reflect.TypeFor[MemoryHotplugPatch](), reflect.TypeFor[MemoryHotplugStatus](), reflect.TypeFor[SnapshotCreate](), reflect.TypeFor[SnapshotLoad](), reflect.TypeFor[ConfigFile](),
	}
}
