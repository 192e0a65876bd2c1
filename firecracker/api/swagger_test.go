package api

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// release is what the swagger of a tag says: see tools/swagger.
type release struct {
	Version string              `json:"version"`
	Routes  map[string]struct{} `json:"routes"` // By "PUT /drives/{drive_id}".
	Types   map[string][]string `json:"types"`  // Fields: the required ones end in "*", the type of an object follows a colon.
}

func swagger(t *testing.T) []release {
	t.Helper()
	text, err := os.ReadFile("../../internal/testing/fakevmm/versions.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []release
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("%d releases, want one for each line from 1.7 to 1.16", len(all))
	}
	return all
}

// swaggerTypes are the types of this package by their names in the swagger.
var swaggerTypes = map[string]reflect.Type{
	"ArmRegisterModifier":     reflect.TypeFor[ARMRegisterModifier](),
	"Balloon":                 reflect.TypeFor[Balloon](),
	"BalloonHintingStatus":    reflect.TypeFor[BalloonHintingStatus](),
	"BalloonStartCmd":         reflect.TypeFor[BalloonHintingStart](),
	"BalloonStats":            reflect.TypeFor[BalloonStats](),
	"BalloonStatsUpdate":      reflect.TypeFor[BalloonStatsPatch](),
	"BalloonUpdate":           reflect.TypeFor[BalloonPatch](),
	"BootSource":              reflect.TypeFor[BootSource](),
	"CpuConfig":               reflect.TypeFor[CPUConfig](),
	"CpuidLeafModifier":       reflect.TypeFor[CPUIDLeafModifier](),
	"CpuidRegisterModifier":   reflect.TypeFor[CPUIDRegisterModifier](),
	"Drive":                   reflect.TypeFor[Drive](),
	"EntropyDevice":           reflect.TypeFor[Entropy](),
	"FullVmConfiguration":     reflect.TypeFor[ConfigFile](),
	"InstanceInfo":            reflect.TypeFor[Instance](),
	"Logger":                  reflect.TypeFor[Logger](),
	"MachineConfiguration":    reflect.TypeFor[MachineConfig](),
	"MemoryBackend":           reflect.TypeFor[MemBackend](),
	"MemoryHotplugConfig":     reflect.TypeFor[MemoryHotplug](),
	"MemoryHotplugSizeUpdate": reflect.TypeFor[MemoryHotplugPatch](),
	"MemoryHotplugStatus":     reflect.TypeFor[MemoryHotplugStatus](),
	"Metrics":                 reflect.TypeFor[Metrics](),
	"MmdsConfig":              reflect.TypeFor[MMDSConfig](),
	"MsrModifier":             reflect.TypeFor[MSRModifier](),
	"NetworkInterface":        reflect.TypeFor[NetworkInterface](),
	"NetworkOverride":         reflect.TypeFor[NetworkOverride](),
	"PartialDrive":            reflect.TypeFor[DrivePatch](),
	"PartialNetworkInterface": reflect.TypeFor[NetworkInterfacePatch](),
	"PartialPmem":             reflect.TypeFor[PmemPatch](),
	"Pmem":                    reflect.TypeFor[Pmem](),
	"RateLimiter":             reflect.TypeFor[RateLimiter](),
	"SerialDevice":            reflect.TypeFor[Serial](),
	"SnapshotCreateParams":    reflect.TypeFor[SnapshotCreate](),
	"SnapshotLoadParams":      reflect.TypeFor[SnapshotLoad](),
	"TokenBucket":             reflect.TypeFor[TokenBucket](),
	"VcpuFeatures":            reflect.TypeFor[VCPUFeatures](),
	"Vsock":                   reflect.TypeFor[Vsock](),
	"VsockOverride":           reflect.TypeFor[VsockOverride](),
}

// withoutType are those of the swagger that methods of Client make or read by themselves.
var withoutType = []string{"CpuTemplate", "Error", "FirecrackerVersion", "InstanceActionInfo", "MmdsContentsObject", "Vm"}

// silent is what releases have and their swagger does not say: the release from which it does, by field.
var silent = map[string]string{
	"CpuConfig.kvm_capabilities":     "1.11.0", // src/vmm/src/cpu_config/x86_64/custom_cpu_template.rs@v1.7.0
	"CpuConfig.vcpu_features":        "1.11.0", // src/vmm/src/cpu_config/aarch64/custom_cpu_template.rs@v1.7.0
	"FullVmConfiguration.cpu-config": "1.10.0", // src/vmm/src/resources.rs@v1.7.0
	"FullVmConfiguration.entropy":    "1.10.0", // likewise
}

// hotplug are requests that no swagger has. docs/device-hotplug.md@v1.16.0
var hotplug = []string{"DELETE /drives/{drive_id}", "DELETE /pmem/{id}", "DELETE /network-interfaces/{iface_id}"}

func TestFieldsAgreeWithSwagger(t *testing.T) {
	for _, r := range swagger(t) {
		v, err := ParseVersion(r.Version)
		if err != nil {
			t.Fatal(err)
		}
		for name := range r.Types {
			if _, ok := swaggerTypes[name]; !ok && !slices.Contains(withoutType, name) {
				t.Errorf("%s has %s, of which this package knows nothing", v, name)
			}
		}
		for name, resource := range swaggerTypes {
			fields, ok := r.Types[name]
			if ok {
				fieldsAgree(t, v, name, resource, fields)
			} else if err := Check(v, reflect.New(resource).Interface()); err == nil && resourceSince[resource] != "" {
				t.Errorf("%s: Check lets %s pass, which it does not have", v, name)
			}
		}
	}
}

// fieldsAgree holds the fields of a resource, and what Check says of each, against those of a release.
func fieldsAgree(t *testing.T, v Version, name string, resource reflect.Type, fields []string) {
	t.Helper()
	required := map[string]bool{} // all that there are
	for _, field := range fields {
		field, _, _ = strings.Cut(field, ":")
		bare, star := strings.CutSuffix(field, "*")
		required[bare] = star
	}
	for i := range resource.NumField() {
		tag := resource.Field(i).Tag.Get("json")
		field, _, _ := strings.Cut(tag, ",")
		star, has := required[field]
		delete(required, field)
		if star && strings.HasSuffix(tag, ",omitempty") {
			t.Errorf("%s: %s.%s is required, and left out when it is zero", v, name, field)
		}
		if since, ok := silent[name+"."+field]; ok && !v.since(releases(since)) {
			has = true
		}
		value := reflect.New(resource).Elem()
		value.Field(i).Set(notZero(resource.Field(i).Type))
		if err := Check(v, value.Interface()); (err == nil) != has {
			t.Errorf("Check(%s, %s with %s) = %v, but it has the field: %v", v, name, field, err, has)
		}
	}
	for field := range required {
		t.Errorf("%s has %s.%s, of which this package knows nothing", v, name, field)
	}
}

func notZero(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, 1, 1))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Struct:
		v.Field(0).Set(notZero(t.Field(0).Type))
	case reflect.Uint32:
		v.SetUint(1)
	default:
		v.SetInt(1)
	}
	return v
}

func TestRoutesAgreeWithSwagger(t *testing.T) {
	called := map[string]bool{}
	for _, request := range requests {
		called[request.method+" "+pattern(request.path)] = true
	}
	there := map[string]bool{}
	for _, route := range hotplug {
		there[pattern(route)] = true
	}
	for _, r := range swagger(t) {
		for route := range r.Routes {
			there[pattern(route)] = true
			if !called[pattern(route)] {
				t.Errorf("%s has %s, which no method of Client requests", r.Version, route)
			}
		}
	}
	for route := range called {
		if !there[route] {
			t.Errorf("%s is requested, which no release has", route)
		}
	}
}

// pattern replaces the id in a path.
func pattern(path string) string {
	parts := strings.Split(path, "/")
	for i := 2; i < len(parts); i++ {
		if parts[i-1] == "drives" || parts[i-1] == "pmem" || parts[i-1] == "network-interfaces" {
			parts[i] = "{}"
		}
	}
	return strings.Join(parts, "/")
}
