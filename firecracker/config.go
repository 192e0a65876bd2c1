//go:build linux

package firecracker

import (
	"encoding/json"
	"fmt"
	"reflect"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/network"
)

// config returns the plan as Firecracker takes it.
func (p plan) config() api.ConfigFile {
	c := api.ConfigFile{
		BootSource:    api.BootSource{KernelImagePath: kernelPath, BootArgs: p.kernelArgs},
		Drives:        []api.Drive{},
		MachineConfig: api.MachineConfig{VCPUCount: p.vcpus, MemSizeMiB: p.memoryMiB, TrackDirtyPages: p.trackDirty},
		Vsock:         &api.Vsock{GuestCID: guestCID, UDSPath: vsockPath},
		Entropy:       &api.Entropy{},
	}
	if p.initrd {
		c.BootSource.InitrdPath = initrdPath
	}
	if p.network != nil {
		c.NetworkInterfaces = []api.NetworkInterface{{
			IfaceID: network.Interface, HostDevName: network.TAP, GuestMAC: network.GuestMAC, RxRateLimiter: limiter(p.network.receive), TxRateLimiter: limiter(p.network.transmit),
		}}
	}
	for _, drive := range p.drives {
		d := api.Drive{DriveID: drive.id, PathOnHost: drive.path, IsRootDevice: drive.root, IsReadOnly: drive.readOnly, RateLimiter: limiter(drive.limit)}
		if drive.durable {
			d.CacheType = "Writeback"
		}
		c.Drives = append(c.Drives, d)
	}
	return c
}

// configFile returns the plan as a configuration file.
func (p plan) configFile() ([]byte, error) { return json.Marshal(p.config()) }

// compare says what a VMM runs with that is not what was asked: it ignores what it does not know in a file.
func (p plan) compare(got api.ConfigFile) error {
	want := p.config()
	want.MachineConfig.HugePages = "None" // what is not asked for it tells too
	for i := range want.Drives {
		setDefault(&want.Drives[i].CacheType, "Unsafe")
		want.Drives[i].IOEngine = "Sync"
	}
	if got.MachineConfig != want.MachineConfig {
		return differs("machine-config", got.MachineConfig, want.MachineConfig)
	}
	if got.BootSource != want.BootSource {
		return differs("boot-source", got.BootSource, want.BootSource)
	}
	if len(got.Drives) != len(want.Drives) {
		return differs("drives", got.Drives, want.Drives)
	}
	for i := range got.Drives {
		if !reflect.DeepEqual(got.Drives[i], want.Drives[i]) {
			return differs("drives", got.Drives[i], want.Drives[i])
		}
	}
	if !reflect.DeepEqual(got.NetworkInterfaces, want.NetworkInterfaces) && len(got.NetworkInterfaces)+len(want.NetworkInterfaces) > 0 {
		return differs("network-interfaces", got.NetworkInterfaces, want.NetworkInterfaces)
	}
	if got.Vsock == nil || *got.Vsock != *want.Vsock {
		return differs("vsock", got.Vsock, want.Vsock)
	}
	if got.Entropy == nil {
		return differs("entropy", got.Entropy, want.Entropy)
	}
	return nil
}

func differs(section string, got, want any) error {
	return fmt.Errorf("%w: the VMM runs with %s %s, not with %s", microvm.ErrUnsupported, section, asJSON(got), asJSON(want))
}

func asJSON(value any) []byte {
	text, _ := json.Marshal(value) // these are plain data
	return text
}
