//go:build linux

package fakevmm

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

// clientTypes are the client's types by their names in the swagger.
var clientTypes = map[string]reflect.Type{
	"MachineConfiguration": reflect.TypeFor[api.MachineConfig](), "BootSource": reflect.TypeFor[api.BootSource](), "CpuidLeafModifier": reflect.TypeFor[api.CPUIDLeafModifier](),
	"CpuidRegisterModifier": reflect.TypeFor[api.CPUIDRegisterModifier](), "MsrModifier": reflect.TypeFor[api.MSRModifier](), "ArmRegisterModifier": reflect.TypeFor[api.ARMRegisterModifier](),
	"VcpuFeatures": reflect.TypeFor[api.VCPUFeatures](), "Drive": reflect.TypeFor[api.Drive](), "PartialDrive": reflect.TypeFor[api.DrivePatch](), "Pmem": reflect.TypeFor[api.Pmem](),
	"PartialPmem": reflect.TypeFor[api.PmemPatch](), "NetworkInterface": reflect.TypeFor[api.NetworkInterface](), "PartialNetworkInterface": reflect.TypeFor[api.NetworkInterfacePatch](),
	"Vsock": reflect.TypeFor[api.Vsock](), "Balloon": reflect.TypeFor[api.Balloon](), "BalloonUpdate": reflect.TypeFor[api.BalloonPatch](), "BalloonStats": reflect.TypeFor[api.BalloonStats](),
	"BalloonStatsUpdate": reflect.TypeFor[api.BalloonStatsPatch](), "BalloonStartCmd": reflect.TypeFor[api.BalloonHintingStart](), "BalloonHintingStatus": reflect.TypeFor[api.BalloonHintingStatus](),
	"MmdsConfig": reflect.TypeFor[api.MMDSConfig](), "Logger": reflect.TypeFor[api.Logger](), "Metrics": reflect.TypeFor[api.Metrics](), "SerialDevice": reflect.TypeFor[api.Serial](),
	"EntropyDevice": reflect.TypeFor[api.Entropy](), "MemoryHotplugConfig": reflect.TypeFor[api.MemoryHotplug](), "MemoryHotplugSizeUpdate": reflect.TypeFor[api.MemoryHotplugPatch](),
	"MemoryHotplugStatus": reflect.TypeFor[api.MemoryHotplugStatus](), "SnapshotCreateParams": reflect.TypeFor[api.SnapshotCreate](), "SnapshotLoadParams": reflect.TypeFor[api.SnapshotLoad](),
	"MemoryBackend": reflect.TypeFor[api.MemBackend](), "NetworkOverride": reflect.TypeFor[api.NetworkOverride](), "VsockOverride": reflect.TypeFor[api.VsockOverride](),
	"RateLimiter": reflect.TypeFor[api.RateLimiter](), "TokenBucket": reflect.TypeFor[api.TokenBucket](), "InstanceInfo": reflect.TypeFor[api.Instance](),
}

// elsewhere are the types that the client has in another form: the body of a call, or the configuration file.
var elsewhere = []string{"CpuConfig", "CpuTemplate", "Error", "FullVmConfiguration", "InstanceActionInfo", "MmdsContentsObject", "Vm", "FirecrackerVersion", patchedMachine}

// unsaid are fields that sources have and the swagger of no tag, or not of all that have them, does.
var unsaid = []string{"MmdsConfig.imds_compat", "SnapshotLoadParams.clock_realtime"}

// The client has each field of each version, and Check says of each version what it lacks.
func TestClientKnowsEveryVersion(t *testing.T) {
	for _, r := range Releases() {
		version, err := api.ParseVersion(r.Version)
		if err != nil {
			t.Fatal(err)
		}
		for name := range r.Types {
			if clientTypes[name] == nil && !slices.Contains(elsewhere, name) {
				t.Errorf("%s of %s: the client does not have it", name, r.Version)
			}
		}
		for name, kind := range clientTypes {
			checkType(t, r, version, name, kind)
		}
	}
}

func checkType(t *testing.T, r Release, version api.Version, name string, kind reflect.Type) {
	fields, _ := r.fields(name)
	known := map[string]bool{}
	for i := range kind.NumField() {
		field, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		known[field] = true
		value := reflect.New(kind).Elem()
		fill(value.Field(i))
		lacks := api.Check(version, value.Interface())
		has := slices.Contains(fields, field)
		if !has && len(fields) == 0 && lacks == nil && carried(name) {
			continue // a part of what the version does not have: the whole is refused
		}
		if (lacks == nil) != has && !slices.Contains(unsaid, name+"."+field) {
			t.Errorf("%s.%s: in the swagger of %s: %v; Check: %v", name, field, r.Version, has, lacks)
		}
	}
	for _, field := range fields {
		if !known[field] {
			t.Errorf("%s.%s of %s: the client does not have it", name, field, r.Version)
		}
	}
}

// carried says whether a type is only ever a part of others, or was not spelled out in the swagger of older tags.
func carried(name string) bool {
	return slices.Contains([]string{"NetworkOverride", "VsockOverride", "CpuidLeafModifier", "CpuidRegisterModifier", "MsrModifier", "ArmRegisterModifier", "VcpuFeatures"}, name)
}

// fill sets a field to something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint32:
		v.SetUint(3)
	case reflect.String:
		v.SetString("x")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	}
}
