package api

import (
	"fmt"
	"reflect"
	"strings"
)

// UnsupportedError is returned for what a version lacks.
type UnsupportedError struct {
	What    string  // A capability, or a field as Firecracker names it: "snapshot-load.clock_realtime".
	Version Version // That lacks it.
	Needs   string  // The releases that brought it, "1.14.4 1.15.1", or for what was removed the one that removed it.
	Removed bool
}

// Error names what, the version, and the version that is needed.
func (e *UnsupportedError) Error() string {
	if e.Removed {
		return fmt.Sprintf("%s: Firecracker %s does not have it any more (it went with %s)", e.What, e.Version, e.Needs)
	}
	return fmt.Sprintf("%s: Firecracker %s does not have it (needs %s or later)", e.What, e.Version, strings.Join(strings.Fields(e.Needs), ", or "))
}

// Check says what of value, a resource or a ConfigFile, a version lacks: an [*UnsupportedError] for the first field that is set and that it does not know, nil when
// there is none. What a version would refuse, or in a file ignore, is found before it is asked.
func Check(v Version, value any) error {
	r := reflect.ValueOf(value)
	if needs := resourceSince[r.Type()]; needs != "" && !v.since(releases(needs)) {
		return &UnsupportedError{What: r.Type().Name(), Version: v, Needs: needs}
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
		if value.Field(i).IsZero() {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		what := path + "." + name
		if needs := field.Tag.Get("since"); needs != "" && !v.since(releases(needs)) {
			return &UnsupportedError{What: what, Version: v, Needs: needs}
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
