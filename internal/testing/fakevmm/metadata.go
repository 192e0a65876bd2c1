//go:build linux

package fakevmm

import (
	"encoding/json"
	"maps"
)

// metadataLimit is how much MMDS holds, in bytes of JSON, unless the command line says otherwise.
const metadataLimit = 51200

const errTooLarge refusal = "MMDS limit exceeded error: The MMDS patch request doesn't fit."

// metadata is what MMDS holds. Nothing is told as an empty object.
func (v *VMM) metadata() any {
	if v.data == nil {
		return map[string]any{}
	}
	return v.data
}

func (v *VMM) putMetadata(r request) error {
	var data any
	if err := json.Unmarshal(r.body, &data); err != nil {
		return err
	}
	if r.key == "PATCH /mmds" {
		if !v.filled {
			return refusal("MMDS error: The MMDS data store is not initialized.")
		}
		data = merge(v.data, data)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if len(text) > metadataLimit {
		return errTooLarge
	}
	v.data, v.filled = data, true
	return nil
}

// merge applies a patch as RFC 7396 says. The target stays as it is.
func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged := map[string]any{}
	if old, ok := target.(map[string]any); ok {
		maps.Copy(merged, old)
	}
	for key, value := range changes {
		if value == nil {
			delete(merged, key)
		} else {
			merged[key] = merge(merged[key], value)
		}
	}
	return merged
}
