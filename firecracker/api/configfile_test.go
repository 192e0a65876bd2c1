package api

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestConfigFileCPUTemplate(t *testing.T) {
	for text, want := range map[string]*CPUTemplate{
		`"t.json"`:                   {Path: "t.json"},
		`{}`:                         {Config: &CPUConfig{}},
		`{"kvm_capabilities":["1"]}`: {Config: &CPUConfig{KVMCapabilities: []string{"1"}}},
	} {
		whole := `{"boot-source":{"kernel_image_path":"k"},"drives":[],"machine-config":{"vcpu_count":1,"mem_size_mib":1},"cpu-config":` + text + `}`
		var f ConfigFile
		if err := json.Unmarshal([]byte(whole), &f); err != nil || !reflect.DeepEqual(f.CPUConfig, want) {
			t.Errorf("%s reads as %+v, %v", text, f.CPUConfig, err)
		}
		if again, err := json.Marshal(f); err != nil || string(again) != whole {
			t.Errorf("%s is written as %s, %v", whole, again, err)
		}
	}
	f := ConfigFile{CPUConfig: &CPUTemplate{Path: "before"}}
	if err := json.Unmarshal([]byte(`{"cpu-config":null}`), &f); err != nil || f.CPUConfig != nil {
		t.Errorf("null reads as %+v, %v", f.CPUConfig, err)
	}
	if err := json.Unmarshal([]byte(`{"cpu-config":5}`), &f); err == nil {
		t.Error("a number is taken for a template")
	}
}

// A back end's drive must not name what only a file has, not even as empty.
func TestDriveOfBackEnd(t *testing.T) {
	for want, drive := range map[string]Drive{
		`{"drive_id":"d","is_root_device":false,"socket":"s"}`:                           {DriveID: "d", Socket: "s"},
		`{"drive_id":"d","path_on_host":"p","is_root_device":false}`:                     {DriveID: "d", PathOnHost: "p"},
		`{"drive_id":"d","path_on_host":"p","is_root_device":false,"is_read_only":true}`: {DriveID: "d", PathOnHost: "p", IsReadOnly: true},
	} {
		if text, err := json.Marshal(drive); err != nil || string(text) != want {
			t.Errorf("%+v is written as %s, %v, want %s", drive, text, err, want)
		}
	}
}
