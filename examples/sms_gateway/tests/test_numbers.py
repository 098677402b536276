"""Whose number it is: never a stranger's."""

from __future__ import annotations

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from sms_gateway.texts import normalise_number

NUMBERS = {
    # without a country code, where other countries' codes begin so
    ("PH", "9181234567"): "+639181234567",
    ("US", "9175551234"): "+19175551234",
    ("CA", "6045551234"): "+16045551234",
    ("FR", "612345678"): "+33612345678",
    ("ES", "612345678"): "+34612345678",
    ("IN", "9876543210"): "+919876543210",
    ("IT", "3401234567"): "+393401234567",
    ("KE", "712345678"): "+254712345678",
    ("NG", "8031234567"): "+2348031234567",
    ("AU", "412345678"): "+61412345678",
    ("JP", "9012345678"): "+819012345678",
    ("BR", "11961234567"): "+5511961234567",
    ("MX", "5512345678"): "+525512345678",
    ("SG", "81234567"): "+6581234567",
    ("DK", "20123456"): "+4520123456",
    ("NO", "41234567"): "+4741234567",
    ("RU", "9161234567"): "+79161234567",
    ("DE", "15112345678"): "+4915112345678",
    ("FK", "51234"): "+50051234",
    # with the region's own code, without a plus
    ("PH", "639181234567"): "+639181234567",
    ("US", "19175551234"): "+19175551234",
    ("CA", "16045551234"): "+16045551234",
    ("US", "16045551234"): "+16045551234",
    ("FR", "33612345678"): "+33612345678",
    ("DE", "4915112345678"): "+4915112345678",
    ("IN", "919876543210"): "+919876543210",
    ("IT", "393401234567"): "+393401234567",
    ("BR", "5511961234567"): "+5511961234567",
    ("KE", "254712345678"): "+254712345678",
    ("SG", "6581234567"): "+6581234567",
    # with the prefix of long distance calls
    ("PH", "09181234567"): "+639181234567",
    ("FR", "0612345678"): "+33612345678",
    ("DE", "015112345678"): "+4915112345678",
    ("IN", "09876543210"): "+919876543210",
    ("JP", "090-1234-5678"): "+819012345678",
    ("RU", "89161234567"): "+79161234567",
    ("US", "1 (917) 555-1234"): "+19175551234",
    # another country's
    ("PH", "4915112345678"): "+4915112345678",
    ("US", "447911123456"): "+447911123456",
    ("DE", "33612345678"): "+33612345678",  # a land line there, if anybody leaves the 0 out
    ("DE", "639181234567"): "+639181234567",
    ("DE", "447400123456"): "+447400123456",
    ("BR", "84912345678"): "+5584912345678",
    ("PH", "8613812345678"): "+8613812345678",
    ("US", "639181234567"): "+639181234567",
    ("PH", "15005550006"): "+15005550006",  # Twilio's, for tests: possible, not in use
    ("US", "+639181234567"): "+639181234567",
    ("PH", "+19175551234"): "+19175551234",
    ("PH", "+15005550006"): "+15005550006",
    # with the prefix of international calls
    ("PH", "0063 918 123 4567"): "+639181234567",
    ("FR", "00639181234567"): "+639181234567",
    ("US", "011 63 918 123 4567"): "+639181234567",
    ("AU", "0011 63 918 123 4567"): "+639181234567",
    # land lines
    ("AU", "298765432"): "+61298765432",
    ("GB", "2079460958"): "+442079460958",
    ("DE", "3012345678"): "+493012345678",
    # as people write them
    ("PH", "+63 918 123 4567"): "+639181234567",
    ("PH", "(+63) 918 123 4567"): "+639181234567",
    ("PH", "+63-918.123/4567"): "+639181234567",
    ("PH", " (0918) 123-4567 "): "+639181234567",
    ("GB", "+44 (0)20 7946 0958"): "+442079460958",
}
REFUSED = [
    *(
        ("PH", one)
        for one in ("29290", "2929", "29290332", "292905852", "+29290", "911", "0", "00")
    ),
    *(("PH", one) for one in ("63 29290", "6329290", "029290", "8123456", "81234567", "0918123")),
    *(("US", one) for one in ("29290", "12345", "5551234", "262966", "1-800-FLOWERS", "+1 911")),
    *(("LU", "29290"), ("FR", "36105"), ("DE", "22044"), ("GB", "60777"), ("IN", "56161")),
    *(("PH", one) for one in ("639181234567x12", "tel:+639181234567", "639181234567;ext=1")),
    *(("PH", one) for one in ("++639181234567", "6+39181234567", "+", "", "-", "()", "abc", "12")),
    *(
        ("PH", one)
        for one in ("６３９１８１２３４５６７", "6391812345678901234", "+4912345678901234")
    ),
]


@pytest.mark.parametrize(("region", "number"), NUMBERS)
def test_a_number_is_read_as_its_writer_meant_it(region: str, number: str) -> None:
    assert normalise_number(number, region) == NUMBERS[region, number]


@pytest.mark.parametrize(("region", "number"), REFUSED)
def test_a_shortcode_and_what_is_no_number_are_refused(region: str, number: str) -> None:
    with pytest.raises(ValueError, match="not a telephone number"):
        normalise_number(number, region)


def test_mobile_numbers_of_every_region_are_read_in_every_form() -> None:
    wrong = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
        if number is None:
            continue
        right = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        for form in (right, right[1:], phonenumbers.national_significant_number(number)):
            if normalise_number(form, region) != right:
                wrong.append((region, form))
    assert not wrong
