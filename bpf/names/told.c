/* Room for what is told. */
#include "names.h"

#include <string.h>

int wm_told_has_room(const struct wm_told *told, uint32_t times)
{
	return told->transactions_room - told->transactions_count >= times * WM_TOLD_TRANSACTIONS &&
	       told->answers_room - told->answers_count >= times * WM_TOLD_ANSWERS &&
	       told->heard_room - told->heard_count >= times * WM_TOLD_HEARD &&
	       told->addresses_room - told->addresses_count >= times * WM_TOLD_ADDRESSES &&
	       told->http_room - told->http_count >= times * WM_TOLD_HTTP &&
	       told->hellos_room - told->hellos_count >= times * WM_TOLD_HELLOS &&
	       told->names_room - told->names_count >= times * WM_TOLD_NAMES &&
	       told->pieces_room - told->pieces_count >= times * WM_TOLD_PIECES &&
	       told->text_room - told->text_bytes >= times * WM_TOLD_TEXT;
}

uint32_t wm_told_text(struct wm_told *told, const uint8_t *text, uint32_t bytes)
{
	uint32_t at = told->text_bytes;

	if (bytes)
		memcpy(told->text + at, text, bytes);
	told->text_bytes += bytes;
	return at;
}

void wm_hello_tell(struct wm_told *told, const struct wm_hello *of, const uint8_t *sni, const uint8_t *alpn,
		   const uint8_t *ja4, const uint8_t *ja4s, const uint8_t *chosen)
{
	struct wm_hello *one = &told->hellos[told->hellos_count];
	uint32_t bytes = (uint32_t)of->sni_bytes + of->alpn_bytes + of->ja4_bytes + of->ja4s_bytes + of->chosen_bytes;

	if (told->hellos_count == told->hellos_room || told->text_room - told->text_bytes < bytes) {
		told->lost++;
		return;
	}
	told->hellos_count++;
	*one = *of;
	one->sni_at = wm_told_text(told, sni, of->sni_bytes);
	one->alpn_at = wm_told_text(told, alpn, of->alpn_bytes);
	one->ja4_at = wm_told_text(told, ja4, of->ja4_bytes);
	one->ja4s_at = wm_told_text(told, ja4s, of->ja4s_bytes);
	one->chosen_at = wm_told_text(told, chosen, of->chosen_bytes);
}
