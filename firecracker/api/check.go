package api

import (
	"fmt"
	"reflect"
	"strings"
)

// UnsupportedError is returned for what a version lacks.
type UnsupportedError struct {
	What    string  // A capability, or a field by its Go type and Firecracker's name: "SnapshotLoad.clock_realtime".
	Version Version // That lacks it.
	Needs   string  // The releases that brought it, "1.14.4 1.15.1", or for what was removed those that removed it.
	Removed bool
}

// Error names what, the version, and the version that is needed.
func (e *UnsupportedError) Error() string {
	releases := strings.Join(strings.Fields(e.Needs), ", or ")
	if e.Removed {
		return fmt.Sprintf("%s: Firecracker %s does not have it any more (it went with %s)", e.What, e.Version, releases)
	}
	return fmt.Sprintf("%s: Firecracker %s does not have it (needs %s or later)", e.What, e.Version, releases)
}

// Check says what of value, a resource or a [ConfigFile] or a pointer to one, a version lacks: an [*UnsupportedError] for the first field that is set and that it does
// not know, nil when there is none. What a version would refuse, or in a file ignore, is found before it is asked. Data of MMDS have no fields, and pass.
//
// A field's tags since and until say which releases brought it and took it away.
func Check(v Version, value any) error {
	r := reflect.ValueOf(value)
	for r.Kind() == reflect.Pointer {
		r = r.Elem()
	}
	if !r.IsValid() {
		return nil
	}
	if err := v.within(r.Type().Name(), resourceSince[r.Type()], ""); err != nil {
		return err
	}
	return check(v, r, r.Type().Name())
}

func check(v Version, value reflect.Value, path string) error {
	switch value.Kind() {
	case reflect.Pointer:
		if value.IsNil() {
			return nil
		}
		return check(v, value.Elem(), path)
	case reflect.Slice:
		for i := range value.Len() {
			if err := check(v, value.Index(i), path); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return checkFields(v, value, path)
	}
	return nil
}

func checkFields(v Version, value reflect.Value, path string) error {
	for i := range value.NumField() {
		field := value.Type().Field(i)
		if !field.IsExported() || value.Field(i).IsZero() {
			continue
		}
		what := path
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "-" { // else it takes the place of what it is in
			what += "." + name
		}
		if err := v.within(what, field.Tag.Get("since"), field.Tag.Get("until")); err != nil {
			return err
		}
		if err := check(v, value.Field(i), what); err != nil {
			return err
		}
	}
	return nil
}

// resourceSince says since when there are the requests that carry a resource; those of all versions from 1.7 are not in it.
var resourceSince = map[reflect.Type]string{
	reflect.TypeFor[Serial]():               "1.14.0",
	reflect.TypeFor[Pmem]():                 "1.14.0",
	reflect.TypeFor[PmemPatch]():            "1.16.0",
	reflect.TypeFor[MemoryHotplug]():        "1.14.0",
	reflect.TypeFor[MemoryHotplugPatch]():   "1.14.0",
	reflect.TypeFor[MemoryHotplugStatus]():  "1.14.0",
	reflect.TypeFor[BalloonHintingStart]():  "1.14.0",
	reflect.TypeFor[BalloonHintingStatus](): "1.14.0",
}
